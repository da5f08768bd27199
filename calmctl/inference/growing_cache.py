"""Caches: they grow in place, and what many prompts begin with (few-shot examples) is read once for all."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from calmctl.modeling import layers
from calmctl.modeling.calling import accepts, cache_argument
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.stored.parts import PartsModel

# Tokens that there is room for before everything held is copied again.
ROOM = 64
# Reading the prefix in a pass of its own pays from some 16 tokens on (1.2 times as fast; 1.4 times with 32, 2.4 with
# 128: batches of 8 questions, benchmarks/generation.py); for models of a few hundred thousand parameters it does not.
MIN_TOKENS = 32


class GrowingLayer(DynamicLayer):
    """A layer with room behind its tokens; transformers' own copies them all for every new one.

    Keys and values are the beginnings of larger tensors. Whatever replaces them (rows that are repeated, selected or
    reordered) gets a room of its own when the next token comes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._with_room: dict[str, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append states (batch, heads, seq, head_dim) and return all that are held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._append("keys", cast(Tensor, self.keys), key_states)
        self.values = self._append("values", cast(Tensor, self.values), value_states)
        return self.keys, self.values

    def reset(self) -> None:
        """Drop everything, the room too."""
        self._with_room.clear()
        super().reset()

    def _append(self, name: str, held: Tensor, new: Tensor) -> Tensor:
        before, room = held.shape[-2] if held.numel() else 0, self._with_room.get(name)
        after = before + new.shape[-2]
        if room is None or not _begins(room, held) or after > room.shape[-2]:
            room = new.new_empty(*new.shape[:-2], after + ROOM, new.shape[-1])
            if before:
                room[..., :before, :] = held
            self._with_room[name] = room
        room[..., before:after, :] = new
        return room[..., :after, :]


def new_cache(model: PreTrainedModel) -> Cache:
    """Return an empty cache of a model, as it would make one itself."""
    if isinstance(model, ComposedModelForCausalLM):
        return model.new_cache()
    anchor = model.anchor if isinstance(model, PartsModel) else model
    return DynamicCache(config=layers.text_config(anchor.config))


def is_plain(cache: Cache) -> bool:
    """Tell whether all layers hold every token, none a window or a state; layers made on demand do."""
    return len(cache.layers) > 0 and all(type(layer) is DynamicLayer for layer in cache.layers)


def growing_cache(model: PreTrainedModel) -> Cache:
    """Return an empty cache that grows in place, for a model whose own is plain."""
    cache = new_cache(model)
    for part in getattr(cache, "parts", [cache]):
        part.layers = [GrowingLayer() for _ in part.layers]
        part.layer_class_to_replicate = GrowingLayer if part.layer_class_to_replicate else None
    return cache


def _begins(room: Tensor, held: Tensor) -> bool:
    """Tell whether what is held is the beginning of a tensor with room, not something that has replaced it."""
    return held.data_ptr() == room.data_ptr() and held.stride() == room.stride() and len(held) == len(room)


class SharedPrefix:
    """The cache of tokens that a group of prompts begins with.

    Args:
        ids: the tokens; every prompt that goes on from them has more.
    """

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, ids: Sequence[int]) -> None:
        self.length = len(ids)
        self._cache = growing_cache(model)
        last_only = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        input_ids = torch.tensor([list(ids)], device=model.device)
        model(input_ids=input_ids, use_cache=True, **{cast(str, cache_argument(model)): self._cache}, **last_only)

    @torch.inference_mode()
    def for_rows(self, rows: int) -> Cache:
        """Return a cache of the prefix for this many rows, to be gone on from."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def can_share(model: PreTrainedModel) -> bool:
    """Tell whether prompts of different lengths may go on from one cache, padded between prefix and rest.

    Positions have to follow from the mask, not from the place in the cache; so a sliding window, which counts places,
    must not be there either, nor states that run through padding.
    """
    # A composed model takes positions for all its bases, whatever they make of them.
    decoders = [layers.decoder(base) for base in model.bases()] if isinstance(model, PartsModel) else [model]
    if not all(accepts(decoder, "position_ids") for decoder in decoders):
        return False
    return is_plain(new_cache(model))
