"""Interruption of a training: stop all ranks after the current step, with a checkpoint of it."""

from typing import Any

from transformers import TrainerCallback, TrainerState

from calmctl.processes.parent import is_asked_to_end
from calmctl.processes.ranks import Ranks
from calmctl.training.settings import TrainSettings


def all_asked_to_end(ranks: Ranks) -> bool:
    """Return on every rank whether any of them was told to end; all ranks must call it."""
    return ranks.sum([float(is_asked_to_end())])[0] > 0


class SaveAndStop(TrainerCallback):
    """Stops a training after the step in which it was told to end, with a checkpoint of that step.

    A validation due at that step is left to the resumed run, because there may be only a minute left.

    Attributes:
        is_interrupted: the training stopped early because the process was told to end.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.is_interrupted = ranks, False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop if any rank was told to end during the step."""
        if all_asked_to_end(self.ranks):
            self.is_interrupted = True
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop if any rank was told to end while the checkpoint was written."""
        if not self.is_interrupted and all_asked_to_end(self.ranks):
            self.is_interrupted = control.should_training_stop = True


def owes_validation(state: TrainerState, settings: TrainSettings) -> bool:
    """Tell whether a training was interrupted before the validation due at its current step had ended."""
    step = state.global_step
    is_due = step % settings.validation_steps == 0 or step == settings.steps
    return is_due and not any("eval_loss" in row and row["step"] == step for row in state.log_history)
