"""Validation: the loss on held-out examples, and what it decides: best checkpoint, early stopping, giving up."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from calmctl.modeling.loss import IGNORED
from calmctl.processes.parent import Interrupted
from calmctl.processes.ranks import current_ranks
from calmctl.training.batches import Batches
from calmctl.training.interruption import all_asked_to_end
from calmctl.training.settings import TrainSettings

WORSE = 3

# (inputs without labels, labels) -> (summed loss, mask (labels,) of labels that were the most likely token).
Answer = Callable[[dict[str, Any], Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Score:
    """The result of a validation.

    Attributes:
        loss: mean over all labels.
        exact_match: share (0 to 1) of examples whose every label was the most likely token (teacher-forced).
        bits_per_byte: bits of all labels per UTF-8 byte of their texts; None if the size of the texts is unknown.
    """

    loss: float
    exact_match: float
    bits_per_byte: float | None = None


class Validation:
    """Validates a model on all examples once, in batches of similar length, always in the same order.

    Processes take turns with the batches. In every turn all processes run a batch, because sharded layers need them.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.batches.examples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this process's batches, which need no more memory than training batches."""
        ranks, parts = current_ranks(), self.parts()
        for begin in range(0, len(parts), ranks.count):
            turn = parts[begin : begin + ranks.count]
            mine = turn[ranks.index] if ranks.index < len(turn) else None
            yield self.batches.collate(mine) if mine is not None else self.batches.nothing_of(turn[0])

    def parts(self) -> list[NDArray[np.int64]]:
        """Return the indices of the examples of each batch, longest examples first."""
        settings, lengths = self.batches.settings, self.batches.examples.lengths
        shares = settings.accumulation * current_ranks().count
        size, begin, parts = settings.batch_size // shares, 0, []
        order = np.argsort(-lengths, kind="stable")
        while begin < len(order):
            if settings.batch_tokens:
                size = max(settings.batch_tokens // shares // int(lengths[order[begin]]), 1)
            parts.append(order[begin : begin + size])
            begin += size
        return parts

    @torch.no_grad()
    def score(self, model: PreTrainedModel, answer: Answer, device: torch.device) -> Score:
        """Score a model in eval mode, and restore its mode.

        All processes return bit-identical scores, so that they decide alike.

        Raises:
            Interrupted: one of the processes was told to end; raised on all.
        """
        was_training = model.training
        model.eval()
        # On the root of a composed model this flag only selects the loss without the logits of every token.
        model.training = True
        loss = torch.zeros((), dtype=torch.float64, device=device)
        labels, exact = 0, torch.zeros((), dtype=torch.float64, device=device)
        try:
            for batch in self:
                if all_asked_to_end(current_ranks()):
                    raise Interrupted
                batch = send_to_device(batch, device)
                targets = batch.pop("labels")
                total, correct = answer(batch, targets)
                loss += total
                labels += int((targets[:, 1:] != IGNORED).sum())
                exact += exact_rows(targets, correct).sum()
        finally:
            model.train(was_training)
        sums = current_ranks().sum([loss.item(), labels, exact.item()])
        sizes = self.batches.examples.learned_bytes
        bits = sums[0] / math.log(2) / max(int(sizes.sum()), 1) if sizes is not None else None
        return Score(sums[0] / max(sums[1], 1), sums[2] / len(self), bits)


def exact_rows(labels: Tensor, correct: Tensor) -> Tensor:
    """Return which rows (batch,) of labels (batch, seq) have labels, all of them `correct` (labels,)."""
    asked = (labels[:, 1:] != IGNORED).to(correct.device)
    row = asked.nonzero()[:, 0]
    errors = torch.zeros(len(labels), device=correct.device).index_add_(0, row, (~correct).float())
    return asked.any(1) & (errors == 0)


def stays_worse(losses: Sequence[float], alone: float, start: float) -> bool:
    """Tell whether a model's validation loss stays above that of its base alone.

    It does if every loss was above both `alone` and `start`, and the last `WORSE` losses were clearly above both and
    did not get closer.

    Args:
        losses: of all validations after the start.
        alone, start: the losses of the base alone and of the model before its first step.
    """
    last, least = losses[-WORSE:], max(alone, start)
    return len(last) == WORSE and min(losses) > least and min(last) > 1.1 * least + 0.05 and last[-1] >= last[0]


class ActOnValidation(TrainerCallback):
    """Saves the best model as a checkpoint, and stops a training that no longer improves."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Compare with the best so far, which the Trainer updates afterwards."""
        if not state.global_step:
            return  # nothing is trained yet
        if known["metrics"]["eval_loss"] < (float("inf") if state.best_metric is None else state.best_metric):
            control.should_save = control.should_save or self.settings.keep_best
        elif out_of_patience(state, self.settings):
            control.should_training_stop = True


def out_of_patience(state: TrainerState, settings: TrainSettings) -> bool:
    """Tell whether the last `patience` validations brought no new best."""
    since_best = state.global_step - (state.best_global_step or 0)
    return bool(settings.patience) and since_best >= settings.patience * settings.validation_steps


def state_of(checkpoint: Path) -> TrainerState:
    """Return the Trainer's state in a checkpoint: its step, the best validation loss and its step."""
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
