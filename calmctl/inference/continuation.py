"""Continuations: the token ids that a model generates after prompts, in a batch whose free places are filled again."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList
from transformers.cache_utils import Cache

from calmctl.inference.decoding import FiniteLogits, NotFiniteError, SeededSampling, seeded_sampling
from calmctl.inference.growing_cache import SharedPrefix, growing_cache
from calmctl.inference.settings import Decoding
from calmctl.inference.text import StopStrings, TextStream
from calmctl.modeling.cache import ComposedCache, join_caches
from calmctl.modeling.calling import CACHE, accepts, cache_of

# Tokens per call of `generate`. Between calls, which costs a few milliseconds, ended rows are dropped and others begin.
STRETCH = 32
# Free places are filled when they are this share of all: reading few prompts at a time would cost more than it saves.
REFILL = 0.25


class Rows:
    """A batch that is being continued.

    Attributes:
        input_ids: (rows, seq), generated tokens included.
        attention_mask: (rows, seq); 0 on padding, which stands left of the prompts, and right of a cached prefix.
        cache: of the tokens read so far; None = the model makes its own.
        starts: the place of the first generated token in each row.
    """

    def __init__(
        self, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device, cache: Cache | None = None
    ) -> None:
        width = max(map(len, prompts))
        self.cache, self.starts = cache, [width] * len(prompts)
        read = cache.get_seq_length() if cache is not None else 0
        input_ids = torch.full((len(prompts), width), pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            ids, rest = torch.tensor(prompt), width - len(prompt) + read
            input_ids[row, :read], input_ids[row, rest:] = ids[:read], ids[read:]
            attention_mask[row, :read], attention_mask[row, rest:] = 1, 1
        self.input_ids, self.attention_mask = input_ids.to(device), attention_mask.to(device)

    def arguments(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return the arguments of `generate` that continue the rows."""
        mask = {"attention_mask": self.attention_mask} if accepts(model, "attention_mask") else {}
        return {"input_ids": self.input_ids, **mask, CACHE: self.cache}

    def new_ids(self) -> list[list[int]]:
        """Return the generated tokens of each row."""
        first = min(self.starts)
        rows = self.input_ids[:, first:].tolist()
        return [row[start - first :] for row, start in zip(rows, self.starts, strict=True)]

    def extend(self, sequences: Tensor, cache: Cache | None) -> None:
        """Take over what `generate` returned: longer rows (rows, seq), and the cache of all but the newest token."""
        self.attention_mask = F.pad(self.attention_mask, (0, sequences.shape[1] - self.input_ids.shape[1]), value=1)
        self.input_ids, self.cache = sequences, cache

    def keep(self, places: Sequence[int]) -> None:
        """Drop all rows but these."""
        kept = torch.tensor(places, device=self.input_ids.device)
        self.input_ids, self.attention_mask = self.input_ids[kept], self.attention_mask[kept]
        self.starts = [self.starts[place] for place in places]
        if self.cache is not None:
            self.cache.batch_select_indices(kept)

    def join(self, other: "Rows") -> None:
        """Append the rows of another batch, which has a cache if this one has, with as little padding as possible."""
        both = (self, other)
        lengths = [rows.input_ids.shape[1] - int(rows.attention_mask.argmax(1).min()) for rows in both]
        one, two = (max(lengths) - rows.input_ids.shape[1] for rows in both)
        if self.cache is not None and other.cache is not None:
            join_caches(self.cache, other.cache, (one, two))
        self.input_ids = torch.cat([F.pad(self.input_ids, (one, 0)), F.pad(other.input_ids, (two, 0))])
        self.attention_mask = torch.cat([F.pad(self.attention_mask, (one, 0)), F.pad(other.attention_mask, (two, 0))])
        self.starts = [*(start + one for start in self.starts), *(start + two for start in other.starts)]


@dataclass
class _Batch:
    """Rows, the index of the prompt that each continues, and how they are sampled."""

    places: list[int]
    rows: Rows
    sampling: SeededSampling | None

    def keep(self, kept: Sequence[int]) -> None:
        self.places = [self.places[row] for row in kept]
        self.rows.keep(kept)
        if self.sampling is not None:
            self.sampling.keep(kept)

    def join(self, other: "_Batch") -> None:
        self.places += other.places
        self.rows.join(other.rows)
        if self.sampling is not None and other.sampling is not None:
            self.sampling.join(other.sampling)


class Continuations:
    """Continues prompts with a model; to be used within `ready_to_write`.

    Args:
        most_places: that rows may take which continue from a given cache (see `Reading`).
        on_text: receives the text while it is generated; for one prompt, without beams or stop strings.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        most_places: int,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.decoding, self.on_text = model, tokenizer, decoding, on_text
        self.most_places = most_places
        # Augs that read prompts only would take the input of every call for the prompt.
        self.is_encoder = getattr(model.config, "aug_reads", None) == "prompt"
        self._may_end: dict[tuple[str, ...], dict[int, bool]] = {}

    @torch.inference_mode()
    def new_ids(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        stop: tuple[str, ...],
        max_new_tokens: int,
        batch_size: int,
        prefix_of: Callable[[Sequence[int]], SharedPrefix | None] = lambda _: None,
    ) -> Iterator[dict[int, list[int]]]:
        """Yield the new ids of prompts as they end, by index; the next prompts take the places that become free.

        New ids are without the end-of-text token, up to the one that completes a stop string. If the model cannot
        continue from a cache, a batch is finished before the next begins.

        Args:
            prompts: in the order in which they begin.
            prefix_of: returns the cache of the tokens that some prompts (indices) begin with, if they share one.

        Raises:
            NotFiniteError: the logits after a prompt are NaN or infinite.
        """
        waiting, batch, folded = deque(range(len(prompts))), None, dict[tuple[int, int], Tensor | None]()
        if not max_new_tokens:
            yield {place: [] for place in waiting}
            return

        goes_on = max(map(len, prompts), default=0) + max_new_tokens <= self.most_places
        grows = goes_on and self.decoding.num_beams == 1
        in_stretches = grows and self.on_text is None and not self.is_encoder

        def begun(count: int) -> _Batch:
            places = [waiting.popleft() for _ in range(min(count, len(waiting)))]
            cache = growing_cache(self.model) if grows else None
            if goes_on and (prefix := prefix_of(places)) is not None:
                cache = prefix.for_rows(len(places) * self.decoding.num_beams)
            if isinstance(cache, ComposedCache):
                cache.folded = folded
            pad_id, device = self.model.generation_config.pad_token_id, self.model.device
            sampling = seeded_sampling(self.decoding, [seeds[place] for place in places], device)
            return _Batch(places, Rows([list(prompts[place]) for place in places], pad_id, device, cache), sampling)

        def advanced(batch: _Batch, count: int) -> dict[int, list[int]]:
            stops = self._stops(stop, [prompts[place] for place in batch.places], batch.rows.starts)
            return self._advance(batch, count if in_stretches else None, max_new_tokens, stops)

        while batch is not None or waiting:
            if batch is None:
                batch = begun(batch_size)
            elif waiting and batch_size - len(batch.places) >= min(len(waiting), REFILL * batch_size):
                fresh = begun(batch_size - len(batch.places))
                # One token each, so that the new rows have a cache of all but the newest token, as the others have.
                if ended := advanced(fresh, 1):
                    yield ended
                if fresh.places:
                    batch.join(fresh)
                del fresh
            if ended := advanced(batch, STRETCH):
                yield ended
            batch = batch if batch.places else None

    def _advance(
        self, batch: _Batch, count: int | None, max_new_tokens: int, stops: StopStrings | None
    ) -> dict[int, list[int]]:
        """Continue all rows by at most `count` tokens; drop those that ended, and return their new ids by prompt.

        Args:
            count: None = until all rows have ended.
        """
        rows, ends = batch.rows, self.model.generation_config.eos_token_id or []
        room, finite = max_new_tokens - rows.input_ids.shape[1] + min(rows.starts), FiniteLogits()
        processors = [finite, batch.sampling] if batch.sampling is not None else [finite]
        output = self.model.generate(  # type: ignore[operator]
            **rows.arguments(self.model),
            max_new_tokens=room if count is None else min(count, room),
            do_sample=False,  # `generate` itself would draw for all rows from one generator
            num_beams=self.decoding.num_beams,
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([stops] if stops else []),
            streamer=TextStream(self.tokenizer, self.on_text, ends) if self.on_text is not None else None,
            return_dict_in_generate=True,
        )
        rows.extend(output.sequences, cache_of(output))
        if (bad := finite.first_bad()) is not None:
            raise NotFiniteError(self.model, "logits", batch.places[bad // self.decoding.num_beams])
        # Beams change rows from step to step, so a stop in one row says nothing about the best beam.
        stopped = stops.ends if stops and self.decoding.num_beams == 1 else {}
        found: dict[int, list[int]] = {}
        going = []
        for row, (place, ids) in enumerate(zip(batch.places, rows.new_ids(), strict=True)):
            end = _end(ids, ends, stopped.get(row))
            if end is not None or len(ids) == max_new_tokens or count is None:
                found[place] = ids[:end]
            else:
                going.append(row)
        if not going:
            batch.places = []
        elif found:
            batch.keep(going)
        return found

    def _stops(
        self, stop: tuple[str, ...], prompts: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> StopStrings | None:
        known = self._may_end.setdefault(stop, {})
        return StopStrings(self.tokenizer, stop, starts, known, prompts) if stop else None


def _end(ids: list[int], eos_ids: Sequence[int], stopped_at: int | None) -> int | None:
    """Return how many of the new ids belong to the completion (padding may follow); None = it has not ended."""
    ends = [place for place, token in enumerate(ids) if token in eos_ids][:1]
    return min([*ends, *([stopped_at] if stopped_at else [])], default=None)
