"""Inference: text in, text out."""
