"""Experiments: one file per section of the paper, and what they share."""
