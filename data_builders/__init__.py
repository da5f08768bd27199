"""Data builders: read raw sources and benchmarks, and write training and test files with a manifest."""
