"""KV caches that grow in place, and that hold a prefix shared by many prompts (few-shot examples)."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from calmctl.modeling import layers
from calmctl.modeling.calling import accepts, cache_argument
from calmctl.modeling.stored.parts import PartsModel

# Free places for tokens to allocate at a time; when they are used up, the whole cache is copied.
ROOM = 64
# A separate pass for the prefix pays from some 16 tokens on (1.2 times as fast; 1.4 times with 32, 2.4 with 128:
# batches of 8 questions, benchmarks/generation.py), but not for models of a few hundred thousand parameters.
MIN_TOKENS = 32


class GrowingLayer(DynamicLayer):
    """A cache layer with free places after its tokens; transformers' own copies all tokens for every new one.

    Keys and values are views of the beginning of larger tensors. Tensors that replace them (rows repeated, selected,
    reordered or joined) get free places of their own with the next token.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values (batch, heads, seq, head_dim), and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _append(cast(Tensor, self.keys), key_states)
        self.values = _append(cast(Tensor, self.values), value_states)
        return self.keys, self.values


def _append(held: Tensor, new: Tensor) -> Tensor:
    """Return held and new tokens (batch, heads, seq, head_dim), in the free places behind `held` if they suffice."""
    before = held.shape[-2] if held.numel() else 0
    after = before + new.shape[-2]
    # A view of the beginning of a larger tensor has that tensor's strides.
    places = held.stride(-3) // held.shape[-1] if before else 0
    if after <= places:
        room = held.as_strided((*held.shape[:-2], places, held.shape[-1]), held.stride())
    else:
        room = new.new_empty(*new.shape[:-2], after + ROOM, new.shape[-1])
        if before:
            room[..., :before, :] = held
    room[..., before:after, :] = new
    return room[..., :after, :]


def new_cache(model: PreTrainedModel) -> Cache:
    """Return an empty cache, of the kind that the model would make itself."""
    if isinstance(model, PartsModel):
        return model.new_cache()
    return DynamicCache(config=layers.text_config(model.config))


def is_plain(cache: Cache) -> bool:
    """Tell whether every layer holds all tokens (no sliding window, no recurrent state); False without layers."""
    return len(cache.layers) > 0 and all(type(layer) is DynamicLayer for layer in cache.layers)


def growing_cache(model: PreTrainedModel) -> Cache:
    """Return an empty cache of a model in which every layer holds all tokens and grows in place."""
    cache = new_cache(model)
    for part in getattr(cache, "parts", [cache]):
        part.layers = [GrowingLayer() for _ in part.layers]
        part.layer_class_to_replicate = GrowingLayer if part.layer_class_to_replicate else None
    return cache


class SharedPrefix:
    """The cache of the tokens that a group of prompts begins with.

    Args:
        ids: the tokens; every prompt must have at least one more.
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
        """Return a copy of the prefix's cache for this many rows, which they continue."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def can_share(model: PreTrainedModel) -> bool:
    """Tell whether prompts of different lengths can continue one cache, with padding between prefix and rest.

    Positions must follow from the mask, not from places in the cache. This excludes sliding windows, which count
    places, and recurrent states, which run through padding.
    """
    # A composed model always takes position_ids, so ask its bases.
    decoders = [layers.decoder(base) for base in model.bases()] if isinstance(model, PartsModel) else [model]
    if not all(accepts(decoder, "position_ids") for decoder in decoders):
        return False
    return is_plain(new_cache(model))
