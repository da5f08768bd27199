"""Tracking: the rows of the log in TensorBoard and Weights & Biases too. Nothing is sent anywhere by default."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from calmctl.errors import UserError


def check_trackers(report_to: Sequence[str]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    if missing := [name for name in report_to if find_spec(name) is None]:
        raise UserError(
            f"train.report_to: {', '.join(missing)} is not installed; install it (pip install 'calmctl[tracking]') "
            "or leave it out"
        )


@contextmanager
def trackers(report_to: Sequence[str], folder: Path, step: int) -> Iterator[list[TrainerCallback]]:
    """Yield the callbacks that track a training in a run directory, from a step on; what came after it is replaced.

    Weights & Biases writes to `folder/wandb` and stays offline unless the environment sets WANDB_MODE.
    """
    callbacks: list[TrainerCallback] = []
    if "tensorboard" in report_to:
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)))
    if "wandb" not in report_to:
        yield callbacks
        return
    import wandb

    project = os.environ.get("WANDB_PROJECT", "calmctl")
    # Without a mode wandb follows WANDB_MODE.
    mode: Literal["offline"] | None = None if "WANDB_MODE" in os.environ else "offline"
    with wandb.init(project=project, name=folder.name, dir=folder, mode=mode):
        yield [*callbacks, WandbCallback()]
