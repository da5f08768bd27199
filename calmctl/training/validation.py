"""Validation: the loss on examples that are not trained on, and what follows from it for the training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from calmctl.modeling.loss import IGNORED
from calmctl.training.batches import Batches
from calmctl.training.examples import Examples
from calmctl.training.settings import TrainSettings

HELD_OUT_STREAM = 0x7E57

# What answers a batch: inputs without labels, and the labels, to the summed loss and which labels were most likely.
Answer = Callable[[dict[str, Any], Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Score:
    """What a validation found.

    Attributes:
        loss: mean over all labels.
        exact_match: share (0 to 1) of examples whose every label was the most likely token (teacher-forced).
    """

    loss: float
    exact_match: float


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Return examples to train on, and a share of them (at least one), drawn at random, to validate on."""
    order = np.random.default_rng([seed, HELD_OUT_STREAM]).permutation(len(examples))
    count = max(round(share * len(examples)), 1)
    return examples.subset(np.sort(order[count:])), examples.subset(np.sort(order[:count]))


class Validation:
    """Validates a model on all examples once, in batches of similar length, always in the same order."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.batches.examples)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield batches that need no more memory than those of the training."""
        settings, lengths = self.batches.settings, self.batches.examples.lengths
        size = settings.batch_size // settings.accumulation
        order, begin = np.argsort(-lengths, kind="stable"), 0
        while begin < len(order):
            if settings.batch_tokens:
                size = max(settings.batch_tokens // settings.accumulation // int(lengths[order[begin]]), 1)
            yield self.batches.collate(order[begin : begin + size])
            begin += size

    @torch.no_grad()
    def score(self, model: PreTrainedModel, answer: Answer, device: torch.device) -> Score:
        """Score a model, which is left in the mode that it was in; nothing random is drawn."""
        was_training = model.training
        model.eval()
        # To the root of a composed model this flag says only: the loss, without logits of every token.
        model.training = True
        loss = torch.zeros((), dtype=torch.float64, device=device)
        labels, exact = 0, torch.zeros((), dtype=torch.float64, device=device)
        try:
            for batch in self:
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                targets = batch.pop("labels")
                total, correct = answer(batch, targets)
                loss += total
                labels += int((targets[:, 1:] != IGNORED).sum())
                exact += exact_rows(targets, correct).sum()
        finally:
            model.train(was_training)
        return Score(loss.item() / max(labels, 1), exact.item() / len(self))


def exact_rows(labels: Tensor, correct: Tensor) -> Tensor:
    """Return which rows (batch,) of labels (batch, seq) hold correct ones (labels,) only."""
    row = (labels[:, 1:] != IGNORED).nonzero()[:, 0].to(correct.device)
    errors = torch.zeros(len(labels), device=correct.device).index_add_(0, row, (~correct).float())
    return errors == 0


class ActOnValidation(TrainerCallback):
    """Keeps the best model as a checkpoint, and ends a training that no longer gets better."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Compare with the best so far, which the Trainer updates afterwards."""
        if known["metrics"]["eval_loss"] < (float("inf") if state.best_metric is None else state.best_metric):
            control.should_save = control.should_save or self.settings.keep_best
        elif out_of_patience(state, self.settings):
            control.should_training_stop = True


def out_of_patience(state: TrainerState, settings: TrainSettings) -> bool:
    """Tell whether the last `patience` validations were none better than the best."""
    since_best = state.global_step - (state.best_global_step or 0)
    return bool(settings.patience) and since_best >= settings.patience * settings.validation_steps


def state_of(checkpoint: Path) -> TrainerState:
    """Return what a checkpoint says of the training: its step, the best validation and when that was."""
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
