"""Benchmarks: test sets read from their files or hub datasets, one module per benchmark."""
