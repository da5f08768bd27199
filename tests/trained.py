"""Trainings as the commands run them, given their configurations."""

from collections.abc import Sequence
from pathlib import Path

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.training import baseline_job
from calmctl.runs.run import Run
from calmctl.training.compositions import composition_job
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.job import run_job
from calmctl.training.whole_models import training_job


def run_training(config: TrainConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Train a model."""
    return run_job(training_job(config), out, command)


def run_composition(config: ComposeConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Compose, and train the bridges."""
    return run_job(composition_job(config), out, command)


def run_baseline(config: BaselineConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Train a baseline."""
    return run_job(baseline_job(config), out, command)
