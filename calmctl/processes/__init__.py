"""Processes: ranks, torchrun, SLURM, signals and cores."""
