"""Interruption of a training: a checkpoint of the current step is written before the process ends, by all ranks."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from calmctl.processes.parent import Interrupted, is_asked_to_end
from calmctl.processes.ranks import Ranks
from calmctl.training.checkpoints import newest_sealed
from calmctl.training.settings import TrainSettings


def all_asked_to_end(ranks: Ranks) -> bool:
    """Return, the same on every rank, whether one of them was told to end; all have to ask."""
    return ranks.sum([float(is_asked_to_end())])[0] > 0


class SaveAndStop(TrainerCallback):
    """Ends a training after the step in which it was told to, with a checkpoint of that step.

    A validation that is due then waits for the resumed run: there may be only a minute left.

    Attributes:
        is_interrupted: the training ended early because the process was told to end.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.is_interrupted = ranks, False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask after every step."""
        if all_asked_to_end(self.ranks):
            self.is_interrupted = True
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take no further step where the signal came while a checkpoint was written."""
        if not self.is_interrupted and all_asked_to_end(self.ranks):
            self.is_interrupted = control.should_training_stop = True


def owes_validation(state: TrainerState, settings: TrainSettings) -> bool:
    """Tell whether a training that is validated was interrupted before the validation of its step had ended."""
    step = state.global_step
    is_due = step % settings.validation_steps == 0 or step == settings.steps
    return is_due and not any("eval_loss" in row and row["step"] == step for row in state.log_history)


def interrupted_training(folder: Path) -> Interrupted:
    """Return the interruption of the training whose checkpoints are below `folder`, which says what is saved."""
    checkpoint = newest_sealed(folder)
    if checkpoint is None:
        saved = "before there was a checkpoint; run the same command again to start anew"
    else:
        step = checkpoint.name.rpartition("-")[2]
        saved = f"the checkpoint of step {step} is saved; run the same command again to resume"
    return Interrupted(f"interrupted: {saved}")
