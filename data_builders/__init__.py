"""Data builders: one module a source, turning raw material into records, a manifest and nothing else."""
