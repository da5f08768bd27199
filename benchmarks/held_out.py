"""Bits per byte of held-out rows, for a composition and for an aug alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from calmctl import ComposedModelForCausalLM
from calmctl.modeling.loss import IGNORED, labelled_rows_only
from calmctl.modeling.tokenizers.segmentation import NEVER
from calmctl.training.batches import Batches
from calmctl.training.examples import Examples
from calmctl.training.settings import TrainSettings

LN2 = math.log(2)


@dataclass(frozen=True)
class Held:
    """Held-out rows: examples, the number of bytes of each completion, and the group of each row."""

    examples: Examples
    num_bytes: NDArray[np.int64]
    groups: NDArray[np.str_]

    def per_byte(self, bits: NDArray[np.float64]) -> dict[str, float]:
        """Return bits per byte of every group and of all rows, given the bits of each row."""
        chosen = {str(group): self.groups == group for group in dict.fromkeys(self.groups)}
        chosen["all"] = np.ones(len(bits), dtype=bool)
        return {name: round(float(bits[rows].sum() / self.num_bytes[rows].sum()), 4) for name, rows in chosen.items()}

    def batches(self, pad_id: int, tokens: int) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Yield the indices of rows of similar length and their batch, of about `tokens` tokens."""
        batches = Batches(self.examples, TrainSettings(), 0, pad_id)
        order = np.argsort(self.examples.lengths, kind="stable")
        while len(order):
            size = max(1, tokens // int(self.examples.lengths[order[: max(1, tokens // 8)]].max()))
            rows, order = order[:size], order[size:]
            yield rows, batches.collate(rows)


@torch.no_grad()
def bits_of_composed(model: ComposedModelForCausalLM, held: Held, pad_id: int) -> NDArray[np.float64]:
    """Return the bits of every held-out completion."""
    model.eval()
    bits = np.zeros(len(held.examples))
    for rows, batch in held.batches(pad_id, 1024):
        labels = batch.pop("labels")
        with labelled_rows_only(model, labels) as targets:
            logits = model(**batch, use_cache=False).logits
        bits[rows] = _summed(logits, targets, labels)
    return bits


@torch.no_grad()
def bits_of_aug(aug: PreTrainedModel, held: Held) -> NDArray[np.float64]:
    """Return the aug's bits of every held-out completion, over its final tokens (those never replaced)."""
    bits = np.zeros(len(held.examples))
    read = held.examples.augs[0]
    assert read is not None
    for row in range(len(bits)):
        ids, born, died, _ = read.columns[:, read.starts[row] : read.starts[row + 1]]
        alive = died == NEVER
        ids = torch.from_numpy(ids[alive].astype(np.int64))[None]
        is_prompt = torch.from_numpy(born[alive] < held.examples.completion_starts[row])[None]
        labels = ids.masked_fill(is_prompt, IGNORED)
        with labelled_rows_only(aug, labels) as targets:
            logits = aug(input_ids=ids, use_cache=False).logits
        bits[row] = _summed(logits, targets, labels)[0]
    return bits


def _summed(logits: Tensor, targets: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Return the bits per row (batch,); logits (1, n, vocabulary) and targets (1, n) are of `labels` (batch, seq)."""
    losses = F.cross_entropy(logits[0].float(), targets[0], reduction="none")
    placed = torch.zeros(labels[:, 1:].shape)
    placed[labels[:, 1:] != IGNORED] = losses
    return placed.double().sum(1).numpy() / LN2
