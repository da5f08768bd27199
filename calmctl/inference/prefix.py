"""Shared prefixes: what many prompts begin with (few-shot examples) is read once, and their caches go on from there."""

import copy
from array import array
from collections.abc import Sequence
from typing import cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from calmctl.inference.cache import growing_cache, is_plain, new_cache
from calmctl.modeling import layers
from calmctl.modeling.calling import accepts, cache_argument
from calmctl.modeling.stored.parts import PartsModel

# Reading the prefix in a pass of its own pays from some 16 tokens on (1.2 times as fast; 1.4 times with 32, 2.4 with
# 128: batches of 8 questions, benchmarks/generation.py); for models of a few hundred thousand parameters it does not.
MIN_TOKENS = 32


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


def common_prefix(prompts: Sequence[array]) -> int:
    """Return how many tokens all prompts begin with, leaving each of them one to go on with."""
    # What the first and the last in order have in common, all have.
    pairs = enumerate(zip(min(prompts), max(prompts), strict=False))
    shortest = min(map(len, prompts))
    return min(next((place for place, (one, other) in pairs if one != other), shortest), shortest - 1)
