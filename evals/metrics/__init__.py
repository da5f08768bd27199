"""Metrics: pure functions, and beside them modules for `evaluate.load` that need no network."""
