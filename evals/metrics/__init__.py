"""Metrics as pure functions, and as modules for `evaluate.load` that need no network."""
