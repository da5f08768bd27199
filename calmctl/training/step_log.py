"""The log of a training: what was counted since the last row, and the Trainer's logs as rows."""

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from calmctl.training.trainer import RunTrainer

Row = dict[str, Any]


class Meter:
    """Tokens and exact match since the last row of the log."""

    def __init__(self) -> None:
        self.last_exact_match = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.tokens, self.exact, self.batches, self.began = 0, 0.0, 0, time.monotonic()

    def add(self, tokens: int, exact_match: float) -> None:
        """Count a batch: its tokens, and the share of its completions that were answered exactly."""
        self.last_exact_match = exact_match
        self.tokens, self.exact, self.batches = self.tokens + tokens, self.exact + exact_match, self.batches + 1


class StepLog(TrainerCallback):
    """Turns the Trainer's logs into rows of the run's own log."""

    def __init__(self, trainer: "RunTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin where the Trainer begins."""
        self.trainer.batches.start_step = state.global_step
        self.trainer.meter.reset()
        self.began = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note what the step is about to be taken on."""
        batches = self.trainer.batches
        self.trainer.divergence.begin(state.global_step + 1, batches.examples.rows[batches.drawn])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write a row with every checkpoint, so that what is counted begins anew there in a resumed run too.

        A validation may end in one.
        """
        if control.should_save or control.should_evaluate:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Row | None = None, **_: Any) -> None:
        """Turn a log into a row; raise CalmctlError for a loss that is not finite."""
        if not logs or "loss" not in logs:
            return
        self.trainer.divergence.check_losses()
        meter, curriculum = self.trainer.meter, self.trainer.batches.curriculum
        row = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": round(meter.tokens / max(time.monotonic() - meter.began, 1e-9), 1),
            "seconds": round(self.trainer.seconds_before + time.monotonic() - self.began, 2),
            "exact_match": round(meter.exact / max(meter.batches, 1), 4),
        }
        if curriculum is not None:
            row[curriculum.settings.field] = curriculum.level
        meter.reset()
        self.trainer.on_log(row)
