"""Augs with tokenizers of their own: what they read while the anchor reads its tokens."""
