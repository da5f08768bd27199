"""Benchmarks: their files or hub datasets as records, one file a benchmark."""
