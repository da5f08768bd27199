"""The log of a training: a meter of what happened since the last row, the callback that writes rows, and trackers."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from calmctl.processes.ranks import Ranks
from calmctl.runs.run import Run
from calmctl.training.batches import Batches
from calmctl.training.safeguards import DivergenceWatch
from calmctl.training.settings import TrainSettings

Row = dict[str, Any]


class Meter:
    """Loss, tokens and exact match since the last row of the log, and the seconds of the run.

    Attributes:
        seconds_before: seconds of earlier attempts at the run.
        carried: counts of an interrupted attempt since its last row (see `state`).
    """

    def __init__(self) -> None:
        self.seconds_before, self._run_began = 0.0, time.monotonic()
        self.carried: Mapping[str, float] = {}
        self.reset(0)

    def begin(self, step: int, is_first: bool) -> None:
        """Begin this attempt at the run after `step`; carried counts cover all ranks, so only one takes them over."""
        self._run_began = time.monotonic()
        self.reset(step)
        if carried := self.carried:
            self._loss, self._row_step = torch.tensor(carried["loss"]), int(carried["step"])
            if is_first:
                self._counts = torch.tensor([int(carried["exact"]), int(carried["rows"])])

    def reset(self, step: int) -> None:
        """Start counting anew after the log row of `step`."""
        self._loss, self._row_step = torch.tensor(0.0), step
        self._tokens, self._counts, self._began = 0, torch.zeros(2, dtype=torch.int64), time.monotonic()

    def state(self, ranks: Ranks) -> dict[str, float]:
        """Return the counts of all processes since the last row, and its step; all ranks must call it."""
        exact, rows, loss = ranks.sum([*self._counts.tolist(), self._loss.item()])
        return {"step": self._row_step, "loss": loss / ranks.count, "exact": exact, "rows": rows}

    def add_loss(self, loss: Tensor) -> None:
        """Add the loss of a micro-batch; the losses of a step's micro-batches add up to the step's loss."""
        self._loss = self._loss.to(loss.device) + loss

    def add(self, tokens: int, exact: Tensor, rows: Tensor) -> None:
        """Count a batch: its tokens, its exactly predicted completions, and all its completions."""
        # Keep tensors until a row is written, so as not to wait for the device in every step.
        self._counts = self._counts.to(exact.device) + torch.stack([exact, rows])
        self._tokens += tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of the speed."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._began += time.monotonic() - began

    def totals(self, ranks: Ranks, step: int) -> dict[str, float]:
        """Return the mean loss up to `step`, tokens per second (padding included) and exact match (0 to 1).

        All are over all processes; the time of validations does not count.
        """
        tokens, exact, rows, loss = ranks.sum([self._tokens, *self._counts.tolist(), self._loss.item()])
        speed = tokens / max(time.monotonic() - self._began, 1e-9)
        return {
            "loss": loss / ranks.count / (step - self._row_step),
            "tokens_per_second": round(speed, 1),
            "exact_match": round(exact / max(rows, 1), 4),
        }

    def seconds_of_run(self) -> float:
        """Return the seconds spent on training, earlier attempts included."""
        return round(self.seconds_before + time.monotonic() - self._run_began, 2)


class StepLog(TrainerCallback):
    """Turns the Trainer's logs into rows of the run's own log."""

    def __init__(
        self, meter: Meter, batches: Batches, divergence: DivergenceWatch, ranks: Ranks, write: Callable[[Row], None]
    ) -> None:
        self.meter, self.batches, self.divergence, self.ranks, self.write = meter, batches, divergence, ranks, write
        self.first_step = 1

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set batches and meter to the Trainer's first step."""
        self.batches.start_step = state.global_step
        self.first_step = state.global_step + 1
        self.meter.begin(state.global_step, self.ranks.is_first)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the divergence watch which rows the step trains on."""
        self.divergence.begin(state.global_step + 1, self.batches.examples.rows[self.batches.drawn])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log a row at every checkpoint, so that counting starts anew there, as it does in a resumed run.

        Log one at every validation too, as it may save a checkpoint. Check the first step's loss at once.
        """
        if state.global_step <= self.first_step:
            self.divergence.check_losses()
        if control.should_save or control.should_evaluate:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Row | None = None, **_: Any) -> None:
        """Turn a log into a row; raise CalmctlError for a loss that is not finite."""
        if not logs or "loss" not in logs:
            return
        self.divergence.check_losses()
        meter, curriculum = self.meter, self.batches.curriculum
        totals = meter.totals(self.ranks, state.global_step)
        row = {
            "step": state.global_step,
            "loss": totals["loss"],
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": totals["tokens_per_second"],
            "seconds": meter.seconds_of_run(),
            "exact_match": totals["exact_match"],
            "epoch": round(self.batches.passes_after(state.global_step), 4),
        }
        if curriculum is not None:
            row[curriculum.settings.field] = curriculum.level
        meter.reset(state.global_step)
        # Trackers run after this callback and report `logs`.
        logs.update(totals)
        self.write(row)


class StepProgress(TrainerCallback):
    """Reports the progress of a run after every step, with the figures of its latest log rows."""

    def __init__(self, run: Run, meter: Meter, batches: Batches, settings: TrainSettings) -> None:
        self.run, self.meter, self.batches, self.settings = run, meter, batches, settings
        self._latest: Row = {}

    def add(self, row: Row) -> None:
        """Take over the figures of a row of the log."""
        self._latest |= row
        self._report(row["step"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the step."""
        self._report(state.global_step)

    def _report(self, step: int) -> None:
        total, start = self.settings.steps, self.batches.start_step
        seconds = self.meter.seconds_of_run() - self.meter.seconds_before
        self.run.report_progress(
            "training",
            step,
            total,
            self._latest.get("loss"),
            self._latest.get("tokens_per_second"),
            seconds / (step - start) * (total - step) if step > start else None,
            self.batches.passes_after(step),
            self.batches.passes,
            self._latest.get("validation_loss"),
        )


@contextmanager
def trackers(report_to: Sequence[str], folder: Path, step: int) -> Iterator[list[TrainerCallback]]:
    """Yield the tracker callbacks of a run, which in TensorBoard replace anything tracked after `step`.

    Nothing is sent anywhere by default: Weights & Biases writes to `folder/wandb` and stays offline unless the
    environment sets WANDB_MODE.
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
    # With mode=None wandb follows WANDB_MODE.
    mode: Literal["offline"] | None = None if "WANDB_MODE" in os.environ else "offline"
    with wandb.init(project=project, name=folder.name, dir=folder, mode=mode):
        yield [*callbacks, WandbCallback()]
