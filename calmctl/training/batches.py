"""Batches: each one a pure function of (seed, step, curriculum level), which is all that resuming needs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from calmctl.errors import UserError
from calmctl.modeling.loss import IGNORED
from calmctl.processes.ranks import current_ranks
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import Examples
from calmctl.training.settings import TrainSettings

BATCH_STREAM, EPOCH_STREAM = 0x5EED, 0xE90C


@dataclass(frozen=True)
class _Bucket:
    length: int
    level: int
    held_back: bool
    indices: NDArray[np.int64]


class KeepsStates(Protocol):
    """A store of hidden states of the examples (see `state_store`)."""

    def of(self, rows: NDArray[np.int64]) -> Any:
        """Return the kept states of some examples, as the model takes them."""


class Batches:
    """Draws batches of examples of similar length.

    With `sampling=replacement`, a step draws a bucket (one length range and, under a curriculum, one level) in
    proportion to its size, then rows from it. With `sampling=epochs`, an epoch takes every example once: sorted by
    bucket, shuffled within each, cut into batches, and the batches shuffled.

    Draws do not depend on the number of processes: each process takes its slice of every micro-batch.

    Attributes:
        start_step: first step of the iteration; a resumed run sets it.
        drawn: indices of the examples of the step that was drawn last.
        store: if set, provides the `kept_states` of every batch.
    """

    def __init__(
        self,
        examples: Examples,
        settings: TrainSettings,
        seed: int,
        pad_id: int,
        curriculum: Curriculum | None = None,
    ) -> None:
        self.examples, self.settings, self.seed, self.pad_id = examples, settings, seed, pad_id
        self.curriculum = curriculum
        self.start_step = 0
        self.drawn: NDArray[np.int64] = np.empty(0, np.int64)
        self.store: KeepsStates | None = None
        self._drawn: _Bucket | None = None
        self.buckets = _buckets(examples, settings.bucket_width, curriculum)
        self._epochs = _Epochs(self.buckets, settings, seed)
        if settings.sampling == "epochs" and len(examples) < settings.accumulation:
            raise UserError(
                f"train.accumulation={settings.accumulation}: the data has {len(examples)} examples, and every "
                "micro-batch needs one; give more, or accumulate less"
            )

    def __len__(self) -> int:
        """Return the number of micro-batches of the whole run."""
        return self.settings.steps * self.settings.accumulation

    @property
    def passes(self) -> float:
        """Return how many times the whole run reads each example, on average."""
        return self.passes_after(self.settings.steps)

    def passes_after(self, step: int) -> float:
        """Return how many times each example has been read after so many steps, on average."""
        read, whole = self._share_of_a_step
        return step * read / whole

    def steps_for(self, epochs: float) -> int:
        """Return how many steps read each example so many times, on average; at least one."""
        read, whole = self._share_of_a_step
        return max(math.ceil(round(epochs * whole / read, 6)), 1)

    @property
    def _share_of_a_step(self) -> tuple[int, int]:
        """Return what a step reads and what there is in all, both in batches, in tokens or in examples."""
        if self.settings.sampling == "epochs":
            return 1, self._epochs.per_epoch
        if self.settings.batch_tokens:
            return self.settings.batch_tokens, int(self.examples.starts[-1])
        return self.settings.batch_size, len(self.examples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this process's share of the micro-batches from `start_step` on.

        The curriculum's level is read when a step begins.
        """
        ranks = current_ranks()
        for step in range(self.start_step, self.settings.steps):
            self.drawn = self.rows(step)
            for part in np.array_split(self.drawn, self.settings.accumulation):
                share = np.array_split(part, ranks.count)[ranks.index]
                # With a token budget the share may be empty, but the other ranks still wait for this one.
                yield self.collate(share) if len(share) else self.nothing_of(part)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the indices of the examples of one step."""
        if self.settings.sampling == "epochs":
            return self._epochs.batch(step)
        generator = np.random.default_rng([self.seed, BATCH_STREAM, step])
        buckets = self.buckets
        if self.curriculum is not None:
            shares = self.curriculum.shares()
            level = generator.choice(list(shares), p=list(shares.values()))
            allow_held_back = self.curriculum.level >= self.curriculum.settings.held_back_until
            buckets = [b for b in buckets if b.level == level and (allow_held_back or not b.held_back)]
        weights = np.array([len(bucket.indices) for bucket in buckets], dtype=float)
        self._drawn = buckets[generator.choice(len(buckets), p=weights / weights.sum())]
        size = self.settings.batch_size
        if self.settings.batch_tokens:
            size = max(self.settings.batch_tokens // self._drawn.length, self.settings.accumulation)
        return generator.choice(self._drawn.indices, size=size)

    def observe(self, exact_match: float) -> None:
        """Tell the curriculum the exact match (0 to 1) of the batch that was drawn last."""
        if self.curriculum is not None and self._drawn is not None:
            self.curriculum.update(self._drawn.level, self._drawn.held_back, exact_match)

    def collate(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return right-padded `input_ids`, `attention_mask` (none without padding) and `labels` (-100 = no loss).

        If augs have their own tokenizers, `aug_tokens` holds the tokens of each (see `AugTokens.stacked`), or None.

        Packed examples get `position_ids` instead of a mask: each document counts from 0, padding is 0, and the first
        token of a document has no label, because the token before it belongs to another document.
        """
        sequences = [self.examples.example(row) for row in rows]
        width = max(map(len, sequences))
        ids = np.full((len(rows), width), self.pad_id, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        labels = np.full((len(rows), width), IGNORED, np.int64)
        for line, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
            begin = self.examples.completion_starts[row]
            ids[line, : len(sequence)] = sequence
            mask[line, : len(sequence)] = 1
            labels[line, begin : len(sequence)] = sequence[begin:]
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        if any(aug is not None for aug in self.examples.augs):
            batch["aug_tokens"] = [
                torch.from_numpy(aug.stacked(rows)) if aug is not None else None for aug in self.examples.augs
            ]
        if self.store is not None:
            batch["kept_states"] = self.store.of(rows)
        if self.examples.positions is not None:
            positions = np.zeros((len(rows), width), np.int64)
            for line, row in enumerate(rows):
                begin, end = self.examples.starts[row], self.examples.starts[row + 1]
                positions[line, : end - begin] = self.examples.positions[begin:end]
            labels[positions == 0] = IGNORED
            return batch | {"position_ids": torch.from_numpy(positions)}
        # Without padding the mask says nothing, and models are faster without one.
        if not mask.all():
            batch["attention_mask"] = torch.from_numpy(mask)
        return batch

    def nothing_of(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return a batch of one of these rows, without labels."""
        batch = self.collate(rows[:1])
        return {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}


class _Epochs:
    """Batches in which every example comes once per epoch; a function of seed and step alone."""

    def __init__(self, buckets: Sequence[_Bucket], settings: TrainSettings, seed: int) -> None:
        self.buckets, self.settings, self.seed = buckets, settings, seed
        self._number, self._begin = -1, 0
        self._batches: list[NDArray[np.int64]] = []

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the indices of the examples of a step."""
        if step < self._begin:
            self._number, self._begin, self._batches = -1, 0, []
        while step >= self._begin + len(self._batches):
            self._begin += len(self._batches)
            self._number += 1
            self._batches = self._of_epoch(np.random.default_rng([self.seed, EPOCH_STREAM, self._number]))
        return self._batches[step - self._begin]

    def _of_epoch(self, generator: np.random.Generator) -> list[NDArray[np.int64]]:
        order = np.concatenate([generator.permutation(bucket.indices) for bucket in self.buckets])
        lengths = np.repeat([bucket.length for bucket in self.buckets], [len(b.indices) for b in self.buckets])
        if not self.settings.batch_tokens:  # equal sizes: a small last batch would weigh as much as a full one
            batches = np.array_split(order, self.per_epoch)
        else:
            batches, begin, least = [], 0, self.settings.accumulation
            while begin < len(order):
                count = self._size(lengths[begin:], least)
                if len(order) - begin - count < least:  # too few for another batch
                    count = len(order) - begin
                batches.append(order[begin : begin + count])
                begin += count
        return [batches[place] for place in generator.permutation(len(batches))]

    @cached_property
    def per_epoch(self) -> int:
        """Return the number of batches per epoch; with `batch_tokens`, that of the first epoch."""
        if self.settings.batch_tokens:
            return len(self._of_epoch(np.random.default_rng([self.seed, EPOCH_STREAM, 0])))
        return math.ceil(sum(len(bucket.indices) for bucket in self.buckets) / self.settings.batch_size)

    def _size(self, lengths: NDArray[np.int64], least: int) -> int:
        """Return how many of the next examples (shortest first) fit into one batch."""
        count = least
        while count < len(lengths) and (count + 1) * lengths[count] <= self.settings.batch_tokens:
            count += 1
        return count


def alike(
    order: Sequence[int] | NDArray[np.int64], lengths: NDArray[np.int64], tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Yield batches of examples (sorted by length) with at most `tokens` tokens, padding included, or one example."""
    begin = 0
    while begin < len(order):
        count = 1
        while begin + count < len(order) and (count + 1) * lengths[order[begin + count]] <= tokens:
            count += 1
        yield np.asarray(order[begin : begin + count])
        begin += count


def _buckets(examples: Examples, width: int, curriculum: Curriculum | None) -> list[_Bucket]:
    keys = np.zeros((len(examples), 3), np.int64)
    keys[:, 0] = (examples.lengths + width - 1) // width
    if curriculum is not None:
        keys[:, 1] = curriculum.values
        keys[:, 2] = curriculum.held_back
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    return [
        _Bucket(int(key[0]) * width, int(key[1]), bool(key[2]), np.flatnonzero(inverse.ravel() == number))
        for number, key in enumerate(unique)
    ]
