"""Metrics: pure functions, each wrapped as an `evaluate.Metric` that loads from the package without a network."""
