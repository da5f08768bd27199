"""Generation: prompts in, completions out as they are finished, in batches of similar length.

Rows are padded on the left with an explicit attention mask, from which the positions follow, so a completion does not
depend on the batch it was made in beyond float noise. What a group of prompts begins with is read once. A model that
does not read so (see reading.py) gets batches of equal lengths, or one row at a time.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import CalmctlError, UserError
from calmctl.inference.batching import Group, Row, batches, groups_of, shared_tokens
from calmctl.inference.continuation import Continuations
from calmctl.inference.decoding import Decoding, seed_of
from calmctl.inference.finite import NotFiniteError
from calmctl.inference.habits import without_habits
from calmctl.inference.likelihood import bits_of
from calmctl.inference.memory import head_read_once, is_out_of_memory, release_memory
from calmctl.inference.prefix import MIN_TOKENS, SharedPrefix
from calmctl.inference.prompt import FittedPrompts, OnOverflow, Prompt, fit
from calmctl.inference.reading import reading_of
from calmctl.inference.stopping import cut, written_otherwise
from calmctl.inference.text import completion_of
from calmctl.inference.throughput import Throughput

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """A finished completion.

    Attributes:
        prompt_index: which prompt.
        index: which of the prompt's samples.
    """

    prompt_index: int
    index: int
    text: str
    num_tokens: int


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    throughput: Throughput | None = None,
    on_text: Callable[[str], None] | None = None,
    on_overflow: OnOverflow = "drop_shots",
) -> list[str]:
    """Return the completion of every prompt, in the order of the prompts; several samples stand beside each other.

    Args:
        on_text: receives the text while it is written; for one prompt, without beams or stop strings.

    Raises:
        UserError: a prompt is empty, or does not fit into the model's context with its completion.
    """
    engine = Engine(model, tokenizer, decoding, throughput, on_text=on_text)
    samples = [sample for batch in engine.generate(fit(model, tokenizer, prompts, on_overflow)) for sample in batch]
    return [sample.text for sample in sorted(samples, key=lambda sample: (sample.prompt_index, sample.index))]


class Engine:
    """Generates with a model; what it learns about the memory there is holds for all that it generates.

    Args:
        throughput: is kept up to date.
        share_prefixes: None = where the model's cache allows it and it is faster; a test compares with True and False.
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
        self.model, self.tokenizer, self.decoding = model, tokenizer, decoding
        self.reading = reading_of(model, tokenizer)
        self.continuations = Continuations(model, tokenizer, decoding, self.reading.goes_on, on_text)
        self.throughput = throughput or Throughput()
        self.largest_batch = 1 if self.reading.together == "alone" else decoding.batch_size
        self.batch_size = self.largest_batch
        self.min_shared = 1 if share_prefixes else MIN_TOKENS
        self.share_prefixes = share_prefixes is not False and self.reading.goes_on
        self._prefix: tuple[Sequence[int], SharedPrefix] | None = None
        self._stops: dict[tuple[str, ...], tuple[str, ...]] = {}

    def generate(
        self, fitted: FittedPrompts, done: Collection[Row] = (), places: Sequence[int] | None = None
    ) -> Iterator[list[Sample]]:
        """Yield batches of samples as they are finished.

        Args:
            done: (prompt, sample) of what there is already. Batches are those of an uninterrupted run, less these.
            places: which of the prompts; None = all.

        Raises:
            UserError: several samples are asked for, but there is no chance in the decoding.
            CalmctlError: memory does not suffice for a single prompt, or the logits after one are NaN or infinite.
        """
        check_samples(fitted.prompts, self.decoding)
        places = range(len(fitted.prompts)) if places is None else places
        rows = [(place, index) for place in places for index in range(fitted.prompts[place].num_samples)]
        self.throughput.total, self.throughput.done = len(rows), sum(row in done for row in rows)
        groups = groups_of(fitted)
        shared = shared_tokens(fitted, groups, self.min_shared) if self.share_prefixes else {}
        with without_habits(self.model, self.tokenizer), head_read_once(self.model):
            for batch in batches(rows, fitted, groups, self.largest_batch, self.reading.together == "equal"):
                remaining = [row for row in batch if row not in done]
                while remaining:
                    part = remaining[: self.batch_size]
                    samples = self._attempt(fitted, part, [groups[place] for place, _ in part], shared)
                    if samples is None:
                        continue
                    remaining = remaining[len(part) :]
                    yield samples
                    self.throughput.add(len(samples), sum(sample.num_tokens for sample in samples))
        self._prefix = None

    def bits_of(self, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the index of each pair and the bits of its text after its prompt (see `likelihood.bits_of`)."""
        return bits_of(self.model, self.tokenizer, prompts, texts, self.decoding.batch_size)

    def _attempt(
        self, fitted: FittedPrompts, rows: list[Row], groups: Sequence[Group], shared: Mapping[Group, int]
    ) -> list[Sample] | None:
        """Return the samples of a batch, or None where memory does not suffice: batches are half as large from now."""
        has_prefix = groups[0] in shared and len(set(groups)) == 1
        try:
            samples = self._samples(fitted, rows, groups[0], shared[groups[0]] if has_prefix else 0)
            self.throughput.batch_size = max(self.throughput.batch_size, len(rows))
            return samples
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                length = len(fitted.ids[rows[0][0]])
                raise CalmctlError(f"out of memory with a single prompt of {length} tokens") from error
        # Outside of the handler, where the error still held what had been allocated.
        self._prefix = None
        release_memory()
        if self.batch_size == self.largest_batch:
            _LOGGER.warning("out of memory with a batch of %d; going on with smaller ones", len(rows))
        self.batch_size = (len(rows) + 1) // 2
        return None

    def _samples(self, fitted: FittedPrompts, rows: list[Row], group: Group, shared: int) -> list[Sample]:
        prompts = [fitted.ids[place].tolist() for place, _ in rows]
        prefix = self._shared_prefix(prompts[0][:shared]) if shared else None
        seeds = [
            seed_of(self.decoding.seed, fitted.prompts[place].id or fitted.prompts[place].whole, index)
            for place, index in rows
        ]
        stops = self._stops_of(group)
        try:
            found = self.continuations.new_ids(prompts, seeds, stops, group.max_new_tokens, prefix)
        except NotFiniteError as error:
            raise error.named([fitted.prompts[place].id or str(place + 1) for place, _ in rows]) from None
        return [
            Sample(place, index, cut(completion_of(self.tokenizer, prompt, new_ids), stops), len(new_ids))
            for (place, index), prompt, new_ids in zip(rows, prompts, found, strict=True)
        ]

    def _stops_of(self, group: Group) -> tuple[str, ...]:
        """Return what ends the completions of a group: its stop strings, and what the tokenizer makes of them."""
        if group.stop not in self._stops:
            forms = written_otherwise(self.tokenizer, group.stop).values()
            self._stops[group.stop] = (*group.stop, *(form for form in forms if form is not None))
        return self._stops[group.stop]

    def _shared_prefix(self, ids: Sequence[int]) -> SharedPrefix:
        if self._prefix is None or self._prefix[0] != ids:
            self._prefix = None  # not two at a time
            self._prefix = ids, SharedPrefix(self.model, ids)
        return self._prefix[1]


def check_samples(prompts: Sequence[Prompt], decoding: Decoding) -> None:
    """Raise UserError where several samples of a prompt are wanted, and there is no chance in the decoding."""
    most = max((prompt.num_samples for prompt in prompts), default=1)
    if most > 1 and not decoding.samples:
        raise UserError(
            f"{most} samples of a prompt are wanted, and {decoding.name} decoding writes the same every time; "
            "set decoding.temperature above 0"
        )
