"""Generation: complete prompts with one model, in batches of similar length.

Rows are left-padded with an explicit attention mask, from which the positions follow, so a completion does not depend
on its batch beyond float noise. Rows that end leave their places to the next prompts. A prefix that a group of prompts
shares is read once. A model that cannot be run like this (see reading.py) gets batches of equal lengths, or one row at
a time, and finishes each batch before the next.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.inference.continuation import Continuations
from calmctl.inference.decoding import ready_to_write, seed_of
from calmctl.inference.growing_cache import MIN_TOKENS, SharedPrefix
from calmctl.inference.likelihood import ScoredTexts
from calmctl.inference.prompt import FittedPrompts, Group, Row, fit, shared_tokens
from calmctl.inference.reading import reading_of
from calmctl.inference.settings import Decoding, OnOverflow
from calmctl.inference.text import completion_of, written_otherwise
from calmctl.inference.writer import Sample, Throughput, Writer, by_batch
from evals import Request
from evals.task import before_stops


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


class Engine(Writer):
    """Generates and scores with one model.

    Args:
        throughput: updated whenever completions are finished.
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
        self.continuations = Continuations(model, tokenizer, decoding, self.reading.most_places, on_text)
        self.min_shared = 1 if share_prefixes else MIN_TOKENS
        self.share_prefixes = share_prefixes is not False and self.reading.most_places > 0
        self._shared: dict[Group, int] = {}
        self._prefix: tuple[Sequence[int], SharedPrefix] | None = None
        self._stops: dict[tuple[str, ...], tuple[str, ...]] = {}

    def generate(
        self, fitted: FittedPrompts, done: Collection[Row] = (), places: Sequence[int] | None = None
    ) -> Iterator[list[Sample]]:
        """Yield samples as they are finished; see `Writer.generate`."""
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
            for found in self._in_parts(places, by_batch(scored.bits), described):
                yield from found

    @property
    def _has_equal_lengths(self) -> bool:
        return self.reading.together == "equal"

    def _free(self) -> None:
        self._prefix = None

    def _samples(self, fitted: FittedPrompts, rows: Sequence[Row], batch_size: int) -> Iterator[list[Sample]]:
        prompts = [fitted.ids[place] for place, _ in rows]
        asked = [(fitted.prompts[place], index) for place, index in rows]
        seeds = [seed_of(self.decoding.seed, prompt.id or prompt.text, index) for prompt, index in asked]
        stops = self._stops_of(group := fitted.groups[rows[0][0]])

        def prefix_of(chosen: Sequence[int]) -> SharedPrefix | None:
            groups = {fitted.groups[rows[number][0]] for number in chosen}
            shared = self._shared.get(groups.pop(), 0) if len(groups) == 1 else 0
            return self._shared_prefix(prompts[chosen[0]][:shared]) if shared else None

        def sample(number: int, new_ids: Sequence[int]) -> Sample:
            text = before_stops(completion_of(self.tokenizer, prompts[number], new_ids), stops)
            return Sample(*rows[number], text, len(new_ids))

        for ended in self.continuations.new_ids(prompts, seeds, stops, group.max_new_tokens, batch_size, prefix_of):
            yield [sample(number, new_ids) for number, new_ids in ended.items()]

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
