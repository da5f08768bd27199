"""Augs with their own tokenizer: what they read while the anchor reads its tokens."""
