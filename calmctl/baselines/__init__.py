"""Baselines: what composition is compared with, trained on the same data with as many parameters."""
