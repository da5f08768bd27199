"""Generation: complete prompts in batches of similar length, and yield completions as they are finished.

Rows are left-padded with an explicit attention mask, from which the positions follow, so a completion does not depend
on its batch beyond float noise. A prefix that a group of prompts shares is read once. A model that cannot be run like
this (see reading.py) gets batches of equal lengths, or one row at a time.
"""

import gc
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import CalmctlError, UserError
from calmctl.inference.continuation import Continuations
from calmctl.inference.decoding import NotFiniteError, ready_to_write, seed_of
from calmctl.inference.growing_cache import MIN_TOKENS, SharedPrefix
from calmctl.inference.likelihood import ScoredTexts
from calmctl.inference.prompt import FittedPrompts, Group, Row, batches, fit, shared_tokens
from calmctl.inference.reading import reading_of
from calmctl.inference.settings import Decoding, OnOverflow
from calmctl.inference.text import completion_of, written_otherwise
from calmctl.modeling.probe import is_out_of_memory
from evals import Request
from evals.task import before_stops

_LOGGER = logging.getLogger(__name__)
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Sample:
    """A finished completion.

    Attributes:
        prompt_index: index of the prompt.
        index: index among the samples of the prompt.
    """

    prompt_index: int
    index: int
    text: str
    num_tokens: int


@dataclass
class Throughput:
    """The progress and speed of a generation.

    Attributes:
        total: completions wanted.
        done: completions finished, those of earlier attempts included.
        generated: completions generated in this attempt.
        tokens: tokens generated in this attempt.
        batch_size: the largest batch that has fitted into memory so far; 0 = none yet.
        on_batch: called after every batch.
    """

    total: int = 0
    done: int = 0
    generated: int = 0
    tokens: int = 0
    batch_size: int = 0
    on_batch: Callable[["Throughput"], None] = field(default=lambda _: None)
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.began

    @property
    def tokens_per_second(self) -> float:
        """Return the average speed so far."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def eta_seconds(self) -> float | None:
        """Return the seconds left at this speed; None before the first batch."""
        return self.seconds / self.generated * (self.total - self.done) if self.generated else None

    def add(self, completions: int, tokens: int) -> None:
        """Count a finished batch."""
        self.done += completions
        self.generated += completions
        self.tokens += tokens
        self.on_batch(self)


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Request],
    decoding: Decoding,
    throughput: Throughput | None = None,
    on_text: Callable[[str], None] | None = None,
    on_overflow: OnOverflow = "drop_shots",
) -> list[str]:
    """Return the completions of all prompts, in order; several samples of a prompt are adjacent.

    Args:
        on_text: receives the text while it is generated; for one prompt, without beams or stop strings.

    Raises:
        UserError: a prompt is empty, or does not fit into the model's context with its completion.
    """
    engine = Engine(model, tokenizer, decoding, throughput, on_text=on_text)
    samples = [sample for batch in engine.generate(fit(model, tokenizer, prompts, on_overflow)) for sample in batch]
    return [sample.text for sample in sorted(samples, key=lambda sample: (sample.prompt_index, sample.index))]


class Writer(ABC):
    """Generates completions and scores texts, in batches that fit into memory.

    A batch size that was halved for lack of memory is kept for everything that follows.

    Args:
        most: largest batch size.
        throughput: updated after every batch.
    """

    def __init__(self, decoding: Decoding, most: int, throughput: Throughput | None) -> None:
        self.decoding, self.throughput = decoding, throughput or Throughput()
        self.largest_batch = self.batch_size = most

    @abstractmethod
    def bits_of(self, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the index of each (prompt, text) pair, and the bits of the text given the prompt."""

    @abstractmethod
    def _samples(self, fitted: FittedPrompts, rows: Sequence[Row]) -> list[Sample]:
        """Return the completions of a batch."""

    @abstractmethod
    def _free(self) -> None:
        """Release what is kept on the device between batches."""

    def generate(
        self, fitted: FittedPrompts, done: Collection[Row] = (), places: Sequence[int] | None = None
    ) -> Iterator[list[Sample]]:
        """Yield batches of samples as they are finished.

        Args:
            done: (prompt, sample) of finished completions; batches are those of an uninterrupted run, without these.
            places: indices of the prompts to complete; None = all.

        Raises:
            UserError: several samples are asked for, but decoding is deterministic.
            CalmctlError: memory does not suffice for a single prompt, or the logits after one are NaN or infinite.
        """
        check_samples(fitted.prompts, self.decoding)
        places = range(len(fitted.prompts)) if places is None else places
        rows = [(place, index) for place in places for index in range(fitted.prompts[place].num_samples)]
        self.throughput.total, self.throughput.done = len(rows), sum(row in done for row in rows)

        def written(part: Sequence[Row]) -> list[Sample]:
            try:
                return self._samples(fitted, part)
            except NotFiniteError as error:
                raise error.named([fitted.prompts[place].id or str(place + 1) for place, _ in part]) from None

        for batch in batches(rows, fitted, self.largest_batch, self._has_equal_lengths):
            remaining = [row for row in batch if row not in done]
            for samples in self._in_parts(
                remaining, written, lambda row: f"prompt of {len(fitted.ids[row[0]])} tokens"
            ):
                self.throughput.batch_size = max(self.throughput.batch_size, len(samples))
                yield samples
                self.throughput.add(len(samples), sum(sample.num_tokens for sample in samples))

    @property
    def _has_equal_lengths(self) -> bool:
        """Return whether all prompts of a batch must have one length."""
        return False

    def _in_parts(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Found], described: Callable[[Item], str]
    ) -> Iterator[Found]:
        """Yield results for parts of a batch: all of it at once, halved whenever memory runs out."""
        remaining = list(items)
        while remaining:
            part = remaining[: self.batch_size]
            try:
                found = work(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise CalmctlError(f"out of memory with a single {described(part[0])}") from error
            else:
                remaining = remaining[len(part) :]
                yield found
                continue
            # Not in the handler, where the exception still refers to the allocated tensors.
            self._free()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.batch_size == self.largest_batch:
                _LOGGER.warning("out of memory with a batch of %d; going on with smaller ones", len(part))
            self.batch_size = (len(part) + 1) // 2


class Engine(Writer):
    """Generates and scores with one model.

    Args:
        throughput: updated after every batch.
        share_prefixes: None = if the model's cache allows it and it is faster; True and False are for tests.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        throughput: Throughput | None = None,
        share_prefixes: bool | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.reading = reading_of(model, tokenizer)
        super().__init__(decoding, 1 if self.reading.together == "alone" else decoding.batch_size, throughput)
        self.continuations = Continuations(model, tokenizer, decoding, self.reading.goes_on, on_text)
        self.min_shared = 1 if share_prefixes else MIN_TOKENS
        self.share_prefixes = share_prefixes is not False and self.reading.goes_on
        self._shared: dict[Group, int] = {}
        self._prefix: tuple[Sequence[int], SharedPrefix] | None = None
        self._stops: dict[tuple[str, ...], tuple[str, ...]] = {}

    def generate(
        self, fitted: FittedPrompts, done: Collection[Row] = (), places: Sequence[int] | None = None
    ) -> Iterator[list[Sample]]:
        """Yield batches of samples; see `Writer.generate`."""
        self._shared = shared_tokens(fitted, self.min_shared) if self.share_prefixes else {}
        with ready_to_write(self.model, self.tokenizer):
            yield from super().generate(fitted, done, places)
        self._free()

    def bits_of(self, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the index of each pair, and the bits of its text given its prompt (see `likelihood.ScoredTexts`)."""
        scored = ScoredTexts(self.model, self.tokenizer, prompts, texts)

        def described(place: int) -> str:
            return f"text of {len(scored.wholes[place])} tokens"

        for places in scored.batches(self.batch_size):
            for found in self._in_parts(places, scored.bits, described):
                yield from found

    @property
    def _has_equal_lengths(self) -> bool:
        return self.reading.together == "equal"

    def _free(self) -> None:
        self._prefix = None

    def _samples(self, fitted: FittedPrompts, rows: Sequence[Row]) -> list[Sample]:
        prompts = [fitted.ids[place].tolist() for place, _ in rows]
        group = fitted.groups[rows[0][0]]
        is_one = all(fitted.groups[place] == group for place, _ in rows)
        shared = self._shared.get(group, 0) if is_one else 0
        prefix = self._shared_prefix(prompts[0][:shared]) if shared else None
        asked = [(fitted.prompts[place], index) for place, index in rows]
        seeds = [seed_of(self.decoding.seed, prompt.id or prompt.text, index) for prompt, index in asked]
        stops = self._stops_of(group)
        found = self.continuations.new_ids(prompts, seeds, stops, group.max_new_tokens, prefix)
        return [
            Sample(place, index, before_stops(completion_of(self.tokenizer, prompt, new_ids), stops), len(new_ids))
            for (place, index), prompt, new_ids in zip(rows, prompts, found, strict=True)
        ]

    def _stops_of(self, group: Group) -> tuple[str, ...]:
        """Return a group's stop strings, and the forms into which the tokenizer changes them."""
        if group.stop not in self._stops:
            forms = written_otherwise(self.tokenizer, group.stop).values()
            self._stops[group.stop] = (*group.stop, *(form for form in forms if form is not None))
        return self._stops[group.stop]

    def _shared_prefix(self, ids: Sequence[int]) -> SharedPrefix:
        if self._prefix is None or self._prefix[0] != ids:
            self._prefix = None  # free it before the next is made
            self._prefix = ids, SharedPrefix(self.model, ids)
        return self._prefix[1]


def check_samples(prompts: Sequence[Request], decoding: Decoding) -> None:
    """Raise UserError if several samples of a prompt are wanted, but decoding is deterministic."""
    most = max((prompt.num_samples for prompt in prompts), default=1)
    if most > 1 and not decoding.samples:
        raise UserError(
            f"{most} samples of a prompt are wanted, and {decoding.name} decoding writes the same every time; "
            "set decoding.temperature above 0"
        )
