"""Continuations: the token ids that a model generates after a batch of prompts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList
from transformers.cache_utils import Cache

from calmctl.inference.decoding import FiniteLogits, NotFiniteError, sampling_arguments
from calmctl.inference.growing_cache import SharedPrefix, growing_cache
from calmctl.inference.settings import Decoding
from calmctl.inference.text import StopStrings, TextStream
from calmctl.modeling.calling import CACHE, accepts, cache_of

# Tokens per call of `generate`. Ended rows are dropped between calls, which costs a few milliseconds.
STRETCH = 32


class Rows:
    """A batch that is being continued.

    Attributes:
        input_ids: (rows, seq), generated tokens included.
        attention_mask: (rows, seq); 0 on padding, which stands left of the prompts but right of a cached prefix.
        cache: of the tokens read so far; None = the model makes its own.
        width: length of the padded prompts in tokens.
    """

    def __init__(
        self, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device, cache: Cache | None = None
    ) -> None:
        self.cache, self.width = cache, max(map(len, prompts))
        read = cache.get_seq_length() if cache is not None else 0
        input_ids = torch.full((len(prompts), self.width), pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            ids, rest = torch.tensor(prompt), self.width - len(prompt) + read
            input_ids[row, :read], input_ids[row, rest:] = ids[:read], ids[read:]
            attention_mask[row, :read], attention_mask[row, rest:] = 1, 1
        self.input_ids, self.attention_mask = input_ids.to(device), attention_mask.to(device)

    def arguments(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return the arguments of `generate` that continue the rows."""
        mask = {"attention_mask": self.attention_mask} if accepts(model, "attention_mask") else {}
        return {"input_ids": self.input_ids, **mask, CACHE: self.cache}

    @property
    def num_new(self) -> int:
        """Return how many tokens have been generated in each row."""
        return self.input_ids.shape[1] - self.width

    def extend(self, sequences: Tensor, cache: Cache | None) -> None:
        """Take over what `generate` returned: longer rows (rows, seq), and the cache of all but the newest token."""
        self.attention_mask = F.pad(self.attention_mask, (0, sequences.shape[1] - self.input_ids.shape[1]), value=1)
        self.input_ids, self.cache = sequences, cache

    def keep(self, places: Sequence[int]) -> None:
        """Drop all rows but these."""
        kept = torch.tensor(places, device=self.input_ids.device)
        self.input_ids, self.attention_mask = self.input_ids[kept], self.attention_mask[kept]
        if self.cache is not None:
            self.cache.batch_select_indices(kept)


class Continuations:
    """Continues batches of prompts with a model; to be used within `ready_to_write`.

    Args:
        goes_on: whether the model continues from a given cache (see `Reading`).
        on_text: receives the text while it is generated; for one prompt, without beams or stop strings.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        goes_on: bool,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.decoding, self.on_text = model, tokenizer, decoding, on_text
        self.has_growing_cache = goes_on and decoding.num_beams == 1
        # Augs that read prompts only would take the input of every call for the prompt.
        is_encoder = getattr(model.config, "aug_reads", None) == "prompt"
        self.in_stretches = self.has_growing_cache and on_text is None and not is_encoder
        self._may_end: dict[tuple[str, ...], dict[int, bool]] = {}

    @torch.inference_mode()
    def new_ids(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        stop: tuple[str, ...],
        max_new_tokens: int,
        prefix: SharedPrefix | None = None,
    ) -> list[list[int]]:
        """Return the new ids of each prompt, without the end-of-text token, up to the one that completes a stop string.

        Args:
            prefix: cache of the tokens that all prompts begin with.

        Raises:
            NotFiniteError: the logits after a prompt are NaN or infinite.
        """
        settings = self.model.generation_config
        cache = growing_cache(self.model) if self.has_growing_cache else None
        if prefix is not None:
            cache = prefix.for_rows(len(prompts) * self.decoding.num_beams)
        rows = Rows(prompts, settings.pad_token_id, self.model.device, cache)
        arguments, sampling = sampling_arguments(self.decoding, seeds, self.model.device)
        finite = FiniteLogits()
        arguments["logits_processor"] = LogitsProcessorList([finite, *([sampling] if sampling else [])])
        found: list[list[int]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        while going and (room := max_new_tokens - rows.num_new):
            stops = self._stops(stop, [prompts[place] for place in going], rows.width)
            self._generate(rows, min(STRETCH, room) if self.in_stretches else room, stops, arguments)
            if (bad := finite.first_bad()) is not None:
                raise NotFiniteError(self.model, "logits", going[bad // self.decoding.num_beams])
            # Beams change rows from step to step, so a stop in one row says nothing about the best beam.
            stopped = stops.ends if stops and self.decoding.num_beams == 1 else {}
            goes_on = []
            for place, ids in enumerate(rows.input_ids[:, rows.width :].tolist()):
                end = _end(ids, settings.eos_token_id or [], stopped.get(place))
                found[going[place]] = ids[:end]
                if end is None:
                    goes_on.append(place)
            if not self.in_stretches:
                break
            if 0 < len(goes_on) < len(going):
                rows.keep(goes_on)
                if sampling is not None:
                    sampling.keep(goes_on)
            going = [going[place] for place in goes_on]
        return found

    def _stops(self, stop: tuple[str, ...], prompts: Sequence[Sequence[int]], width: int) -> StopStrings | None:
        known = self._may_end.setdefault(stop, {})
        return StopStrings(self.tokenizer, stop, width, known, prompts) if stop else None

    def _generate(
        self, rows: Rows, max_new_tokens: int, stops: StopStrings | None, arguments: dict[str, object]
    ) -> None:
        """Continue all rows until each has ended or has `max_new_tokens` more tokens."""
        ends = self.model.generation_config.eos_token_id or []
        output = self.model.generate(  # type: ignore[operator]
            **rows.arguments(self.model),
            max_new_tokens=max_new_tokens,
            stopping_criteria=StoppingCriteriaList([stops] if stops else []),
            streamer=TextStream(self.tokenizer, self.on_text, ends) if self.on_text is not None else None,
            return_dict_in_generate=True,
            **arguments,
        )
        rows.extend(output.sequences, cache_of(output))


def _end(ids: list[int], eos_ids: Sequence[int], stopped_at: int | None) -> int | None:
    """Return how many of the new ids belong to the completion (padding may follow); None = it has not ended."""
    ends = [place for place, token in enumerate(ids) if token in eos_ids][:1]
    return min([*ends, *([stopped_at] if stopped_at else [])], default=None)
