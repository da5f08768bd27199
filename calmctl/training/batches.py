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
    """Keeps what a model has found of the examples."""

    def of(self, rows: NDArray[np.int64]) -> Any:
        """Return what is kept of some examples, as the model takes it."""


class Batches:
    """Draws batches of examples of similar length.

    With replacement, a bucket (one length range, and under a curriculum one level) is drawn in proportion to its size,
    then its rows. Without (`sampling=epochs`), an epoch takes every example once: sorted by length, those of one bucket
    at random, cut into batches, and these in random order.

    What a step draws does not depend on the number of processes: each takes its slice of every micro-batch.

    Attributes:
        start_step: where iteration begins; a resumed run sets it.
        drawn: indices of the examples of the step that was drawn last.
        store: keeps states of the examples, which batches then hold as `kept_states`.
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
        """Return how often the whole run looks at each example, on average."""
        settings = self.settings
        if settings.sampling == "epochs":
            return settings.steps / self._epochs.per_epoch
        if settings.batch_tokens:
            return settings.steps * settings.batch_tokens / int(self.examples.starts[-1])
        return settings.steps * settings.batch_size / len(self.examples)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this process's share of the micro-batches from `start_step` on.

        Each step's level is asked for when the step begins.
        """
        ranks = current_ranks()
        for step in range(self.start_step, self.settings.steps):
            self.drawn = self.rows(step)
            for part in np.array_split(self.drawn, self.settings.accumulation):
                share = np.array_split(part, ranks.count)[ranks.index]
                # A token budget may leave nothing: the others still need this process beside them.
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
        """Tell the curriculum how the batch that was drawn last was answered (0 to 1)."""
        if self.curriculum is not None and self._drawn is not None:
            self.curriculum.update(self._drawn.level, self._drawn.held_back, exact_match)

    def collate(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return right-padded `input_ids`, `attention_mask` and `labels` (-100 = not learned) of some examples.

        Where augs have tokenizers of their own, `aug_tokens` holds what each reads (`AugTokens.stacked`), or None.

        Packed ones have `position_ids` instead of a mask: each document counts from 0, padding is 0, and the first
        token of a document is not learned, because only another document stands before it.
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
        """Return a batch like one of some rows, of which nothing is learned."""
        batch = self.collate(rows[:1])
        return {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}


class _Epochs:
    """Batches in which every example comes once an epoch; a function of seed and step alone."""

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
        if not self.settings.batch_tokens:  # as even as can be: a few examples alone would count as much as a batch
            batches = np.array_split(order, self.per_epoch)
        else:
            batches, begin, least = [], 0, self.settings.accumulation
            while begin < len(order):
                count = self._size(lengths[begin:], least)
                if len(order) - begin - count < least:  # too few to be a batch of their own
                    count = len(order) - begin
                batches.append(order[begin : begin + count])
                begin += count
        return [batches[place] for place in generator.permutation(len(batches))]

    @cached_property
    def per_epoch(self) -> int:
        """Return how many batches an epoch has; by their tokens, how many the first one has."""
        if self.settings.batch_tokens:
            return len(self._of_epoch(np.random.default_rng([self.seed, EPOCH_STREAM, 0])))
        return math.ceil(sum(len(bucket.indices) for bucket in self.buckets) / self.settings.batch_size)

    def _size(self, lengths: NDArray[np.int64], least: int) -> int:
        """Return how many of the next examples, which get longer, make a batch."""
        count = least
        while count < len(lengths) and (count + 1) * lengths[count] <= self.settings.batch_tokens:
            count += 1
        return count


def alike(
    order: Sequence[int] | NDArray[np.int64], lengths: NDArray[np.int64], tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Yield examples, given in order of their lengths, as many at a time as fit into so many tokens with padding."""
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
