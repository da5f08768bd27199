"""KV caches that grow in place, or hold a prefix shared by many prompts (few-shot examples)."""

import copy
import sys
from collections.abc import Sequence
from typing import cast

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from calmctl.modeling import layers
from calmctl.modeling.cache import GrowingLayer
from calmctl.modeling.calling import accepts, cache_argument
from calmctl.modeling.stored.parts import PartsModel

# A separate pass for the prefix pays from some 16 tokens on (1.2 times as fast; 1.4 times with 32, 2.4 with 128:
# batches of 8 questions, benchmarks/generation.py), but not for models of a few hundred thousand parameters.
MIN_TOKENS = 32


def new_cache(model: PreTrainedModel) -> Cache:
    """Return an empty cache, of the kind that the model would make itself."""
    if isinstance(model, PartsModel):
        return model.new_cache()
    return DynamicCache(config=layers.text_config(model.config))


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


def most_places(model: PreTrainedModel) -> int:
    """Return how many places, padding included, rows may take that continue one cache; 0 = they cannot continue one.

    Prompts of different lengths then have padding between a shared prefix and the rest. So positions must follow from
    the mask, not from places in the cache. A sliding window counts places, and must not end within the rows. Recurrent
    states run through padding.
    """
    # A composed model always takes position_ids, so ask its bases.
    decoders = [layers.decoder(base) for base in model.bases()] if isinstance(model, PartsModel) else [model]
    held = new_cache(model).layers
    known = (DynamicLayer, GrowingLayer, DynamicSlidingWindowLayer)
    if not held or not all(accepts(decoder, "position_ids") for decoder in decoders):
        return 0
    if not all(type(layer) in known for layer in held):
        return 0
    windows = [layer.sliding_window for layer in held if isinstance(layer, DynamicSlidingWindowLayer)]
    return min(windows, default=sys.maxsize)
