"""Generation: prompts in, completions out as they are finished, in batches of similar length.

Rows are padded on the left with an explicit attention mask, from which the positions follow, so a completion does not
depend on the batch it was made in beyond float noise. What a group of prompts begins with is read once.
"""

import gc
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList
from transformers.cache_utils import Cache

from calmctl.errors import CalmctlError, UserError
from calmctl.inference.batching import Group, Row, batches, groups_of, shared_tokens
from calmctl.inference.decoding import Decoding, seed_of
from calmctl.inference.prefix import MIN_TOKENS, SharedPrefix, can_share
from calmctl.inference.prompt import FittedPrompts, OnOverflow, Prompt, fit
from calmctl.inference.stopping import StopStrings, cut
from calmctl.inference.streaming import TextStream
from calmctl.inference.throughput import Throughput

_LOGGER = logging.getLogger(__name__)
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")

# Tokens generated before rows that have ended make room: a few thousandths of a second, against a row's share of each.
STRETCH = 32


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
        self.model, self.tokenizer, self.decoding, self.on_text = model, tokenizer, decoding, on_text
        self.throughput = throughput or Throughput()
        self.batch_size = decoding.batch_size
        self.min_shared = 1 if share_prefixes else MIN_TOKENS
        self.share_prefixes = share_prefixes is not False and can_share(model)
        self._prefix: tuple[Group, SharedPrefix] | None = None
        # Augs that read prompts only take what a call of `generate` begins with for the prompt.
        is_encoder = getattr(model.config, "aug_reads", None) == "prompt"
        self.in_stretches = can_share(model) and decoding.num_beams == 1 and on_text is None and not is_encoder
        self._may_end: dict[tuple[str, ...], dict[int, bool]] = {}

    def generate(
        self, fitted: FittedPrompts, done: Collection[Row] = (), places: Sequence[int] | None = None
    ) -> Iterator[list[Sample]]:
        """Yield batches of samples as they are finished.

        Args:
            done: (prompt, sample) of what there is already. Batches are those of an uninterrupted run, less these.
            places: which of the prompts; None = all.

        Raises:
            UserError: several samples are asked for, but there is no chance in the decoding.
            CalmctlError: memory does not suffice for a single prompt.
        """
        self._check_samples(fitted.prompts)
        places = range(len(fitted.prompts)) if places is None else places
        rows = [(place, index) for place in places for index in range(fitted.prompts[place].num_samples)]
        self.throughput.total, self.throughput.done = len(rows), sum(row in done for row in rows)
        groups = groups_of(fitted)
        shared = shared_tokens(fitted, groups, self.min_shared) if self.share_prefixes else {}
        with _decoding_alone(self.model, self.tokenizer):
            for batch in batches(rows, fitted, groups, self.decoding.batch_size):
                remaining = [row for row in batch if row not in done]
                while remaining:
                    part = remaining[: self.batch_size]
                    group = groups[part[0][0]]
                    has_prefix = group in shared and all(groups[place] == group for place, _ in part)
                    samples = self._attempt(fitted, part, group, shared[group] if has_prefix else 0)
                    if samples is None:
                        continue
                    remaining = remaining[len(part) :]
                    yield samples
                    self.throughput.add(len(samples), sum(sample.num_tokens for sample in samples))
        self._prefix = None

    def _check_samples(self, prompts: Sequence[Prompt]) -> None:
        most = max((prompt.num_samples for prompt in prompts), default=1)
        if most > 1 and not self.decoding.samples:
            raise UserError(
                f"{most} samples of a prompt are wanted, and {self.decoding.name} decoding writes the same every time; "
                "set decoding.temperature above 0"
            )

    def _attempt(self, fitted: FittedPrompts, rows: list[Row], group: Group, shared: int) -> list[Sample] | None:
        """Return the samples of a batch, or None where memory does not suffice: batches are half as large from now."""
        try:
            samples = self._samples(fitted, rows, group, shared)
            self.throughput.batch_size = max(self.throughput.batch_size, len(rows))
            return samples
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not _is_out_of_memory(error):
                raise
            if len(rows) == 1:
                length = len(fitted.ids[rows[0][0]])
                raise CalmctlError(f"out of memory with a single prompt of {length} tokens") from error
        # Outside of the handler, where the error still held what had been allocated.
        self._prefix = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.batch_size == self.decoding.batch_size:
            _LOGGER.warning("out of memory with a batch of %d; going on with smaller ones", len(rows))
        self.batch_size = (len(rows) + 1) // 2
        return None

    def _samples(self, fitted: FittedPrompts, rows: list[Row], group: Group, shared: int) -> list[Sample]:
        prompts = [list(fitted.ids[place]) for place, _ in rows]
        prefix = self._shared_prefix(group, prompts[0][:shared]) if shared else None
        seeds = [
            seed_of(self.decoding.seed, fitted.prompts[place].id or fitted.prompts[place].whole, index)
            for place, index in rows
        ]
        generated = self._new_ids(prompts, seeds, group, prefix)
        return [
            Sample(place, index, cut(_decode(self.tokenizer, prompt, new_ids), group.stop), len(new_ids))
            for (place, index), prompt, new_ids in zip(rows, prompts, generated, strict=True)
        ]

    def _shared_prefix(self, group: Group, ids: list[int]) -> SharedPrefix:
        if self._prefix is None or self._prefix[0] != group:
            self._prefix = None  # not two at a time
            self._prefix = group, SharedPrefix(self.model, ids)
        return self._prefix[1]

    @torch.inference_mode()
    def _new_ids(
        self, prompts: list[list[int]], seeds: list[int], group: Group, prefix: SharedPrefix | None
    ) -> list[list[int]]:
        """Return the new token ids of each prompt, up to and without the end-of-text token."""
        model, width = self.model, max(map(len, prompts))
        # The cached prefix comes first in every row, padding on the left of what follows it.
        start = prefix.length if prefix else 0
        input_ids = torch.full((len(prompts), width), model.generation_config.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            ids, rest = torch.tensor(prompt), width - len(prompt) + start
            input_ids[row, :start], input_ids[row, rest:] = ids[:start], ids[start:]
            attention_mask[row, :start], attention_mask[row, rest:] = 1, 1
        cache = prefix.for_rows(len(prompts) * self.decoding.num_beams) if prefix else None
        return self._continue(input_ids.to(model.device), attention_mask.to(model.device), cache, seeds, group)

    def _continue(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Cache | None, seeds: list[int], group: Group
    ) -> list[list[int]]:
        """Generate from padded prompts (batch, width), some tokens at a time, after which rows that ended are left out.

        Args:
            cache: of the first tokens of every row.
        """
        tokenizer, settings, width = self.tokenizer, self.model.generation_config, input_ids.shape[1]
        # A row that has ended is filled up with padding while the others go on.
        ends = {*(settings.eos_token_id or []), tokenizer.pad_token_id} - {None}
        known = self._may_end.setdefault(group.stop, {})
        stops = [StopStrings(tokenizer, group.stop, width, known)] if group.stop else []
        rows: list[list[int]] = [[] for _ in seeds]
        going = list(range(len(seeds)))
        arguments, sampling = self.decoding.arguments(seeds, self.model.device)
        while going and (room := width + group.max_new_tokens - input_ids.shape[1]):
            output = self.model.generate(  # type: ignore[operator]
                input_ids=input_ids,
                attention_mask=attention_mask,
                past_key_values=cache,
                max_new_tokens=min(STRETCH, room) if self.in_stretches else room,
                stopping_criteria=StoppingCriteriaList(stops),
                streamer=TextStream(tokenizer, self.on_text, ends) if self.on_text is not None else None,
                return_dict_in_generate=True,
                **arguments,
            )
            new_ids, goes_on = output.sequences[:, width:].tolist(), []
            for place, row in enumerate(going):
                end = next((place for place, token in enumerate(new_ids[place]) if token in ends), None)
                rows[row] = new_ids[place][:end]
                if end is None and not (stops and stops[0].is_in(rows[row])):
                    goes_on.append(place)
            attention_mask = F.pad(attention_mask, (0, output.sequences.shape[1] - input_ids.shape[1]), value=1)
            input_ids, cache = output.sequences, output.past_key_values
            if 0 < len(goes_on) < len(going) and self.in_stretches:
                kept = torch.tensor(goes_on, device=input_ids.device)
                input_ids, attention_mask = input_ids[kept], attention_mask[kept]
                cache.batch_select_indices(kept)
                if sampling is not None:
                    sampling.generators = [sampling.generators[place] for place in goes_on]
            going = [going[place] for place in goes_on]
        return rows


@contextmanager
def _decoding_alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Leave decoding to our settings: eval mode, and of the model's own habits (penalties, ...) only special tokens."""
    own, was_training = model.generation_config, model.training
    model.eval()
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=sorted(_eos_ids(own, tokenizer)) or None,
        pad_token_id=_pad_id(tokenizer),
    )
    try:
        yield
    finally:
        model.generation_config = own
        model.train(was_training)


def _decode(tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int], new_ids: list[int]) -> str:
    """Decode prompt and completion together and cut, so that a leading space of the completion survives."""
    prompt, whole = (
        str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for ids in (prompt_ids, prompt_ids + new_ids)
    )
    return whole[len(prompt) :]


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return an id to fill masked positions with; which one is of no consequence, for they are never attended."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return candidate
    return 0


def _eos_ids(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = settings.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, tokenizer.eos_token_id] if i is not None}


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)
