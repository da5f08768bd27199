"""Writers: generate completions and score texts, in batches that fit into memory, and report how far they are."""

import gc
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from calmctl.errors import CalmctlError, UserError
from calmctl.inference.decoding import NotFiniteError
from calmctl.inference.prompt import FittedPrompts, Row, queues
from calmctl.inference.settings import Decoding
from calmctl.modeling.probe import is_out_of_memory
from evals import Request

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
        on_batch: called whenever completions are finished.
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
        """Return the seconds left at this speed; None before anything is finished."""
        return self.seconds / self.generated * (self.total - self.done) if self.generated else None

    def add(self, completions: int, tokens: int) -> None:
        """Count finished completions."""
        self.done += completions
        self.generated += completions
        self.tokens += tokens
        self.on_batch(self)


class Writer(ABC):
    """Generates completions and scores texts, in batches that fit into memory.

    A batch size that was halved for lack of memory is kept for everything that follows.

    Args:
        most: largest batch size.
        throughput: updated whenever completions are finished.
    """

    def __init__(self, decoding: Decoding, most: int, throughput: Throughput | None) -> None:
        self.decoding, self.throughput = decoding, throughput or Throughput()
        self.largest_batch = self.batch_size = most

    @abstractmethod
    def bits_of(self, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the index of each (prompt, text) pair, and the bits of the text given the prompt."""

    @abstractmethod
    def _samples(self, fitted: FittedPrompts, rows: Sequence[Row], batch_size: int) -> Iterator[list[Sample]]:
        """Yield the completions of rows that may share a batch as they are finished."""

    @abstractmethod
    def _free(self) -> None:
        """Release what is kept on the device between batches."""

    def generate(
        self, fitted: FittedPrompts, done: Collection[Row] = (), places: Sequence[int] | None = None
    ) -> Iterator[list[Sample]]:
        """Yield samples as they are finished.

        Args:
            done: (prompt, sample) of completions that are finished already.
            places: indices of the prompts to complete; None = all.

        Raises:
            UserError: several samples are asked for, but decoding is deterministic.
            CalmctlError: memory does not suffice for a single prompt, or the logits after one are NaN or infinite.
        """
        check_samples(fitted.prompts, self.decoding)
        places = range(len(fitted.prompts)) if places is None else places
        rows = [(place, index) for place in places for index in range(fitted.prompts[place].num_samples)]
        self.throughput.total, self.throughput.done = len(rows), sum(row in done for row in rows)

        def written(queue: Sequence[Row], batch_size: int) -> Iterator[tuple[list[Row], list[Sample]]]:
            try:
                for samples in self._samples(fitted, queue, batch_size):
                    self.throughput.batch_size = max(self.throughput.batch_size, min(batch_size, len(queue)))
                    yield [(sample.prompt_index, sample.index) for sample in samples], samples
            except NotFiniteError as error:
                raise error.named([fitted.prompts[place].id or str(place + 1) for place, _ in queue]) from None

        for queue in queues([row for row in rows if row not in done], fitted, self._has_equal_lengths):
            for samples in self._in_parts(queue, written, lambda row: f"prompt of {len(fitted.ids[row[0]])} tokens"):
                yield samples
                self.throughput.add(len(samples), sum(sample.num_tokens for sample in samples))

    @property
    def _has_equal_lengths(self) -> bool:
        """Return whether all prompts of a batch must have one length."""
        return False

    def _in_parts(
        self,
        items: Sequence[Item],
        work: Callable[[Sequence[Item], int], Iterator[tuple[Sequence[Item], Found]]],
        described: Callable[[Item], str],
    ) -> Iterator[Found]:
        """Yield what is found, with a batch size that is halved whenever memory runs out.

        Args:
            work: takes items and the batch size, and yields items that are finished, with what was found for them.
        """
        done: set[Item] = set()
        while remaining := [item for item in items if item not in done]:
            tried = min(self.batch_size, len(remaining))
            try:
                for finished, found in work(remaining, tried):
                    done.update(finished)
                    yield found
                return
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if tried == 1:
                    raise CalmctlError(f"out of memory with a single {described(remaining[0])}") from error
            # Not in the handler, where the exception still refers to the allocated tensors.
            self._free()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.batch_size == self.largest_batch:
                _LOGGER.warning("out of memory with a batch of %d; going on with smaller ones", tried)
            self.batch_size = (tried + 1) // 2


def by_batch(
    work: Callable[[Sequence[Item]], Found],
) -> Callable[[Sequence[Item], int], Iterator[tuple[Sequence[Item], Found]]]:
    """Return work that takes as many items at once as the batch size allows, and one batch after the other."""

    def one_by_one(items: Sequence[Item], batch_size: int) -> Iterator[tuple[Sequence[Item], Found]]:
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            yield part, work(part)

    return one_by_one


def check_samples(prompts: Sequence[Request], decoding: Decoding) -> None:
    """Raise UserError if several samples of a prompt are wanted, but decoding is deterministic."""
    most = max((prompt.num_samples for prompt in prompts), default=1)
    if most > 1 and not decoding.samples:
        raise UserError(
            f"{most} samples of a prompt are wanted, and {decoding.name} decoding writes the same every time; "
            "set decoding.temperature above 0"
        )
