"""How to call models: which arguments they take, and what the installed transformers calls the cache.

Since 5.24 a cache is called `cache`, before that `past_key_values`: as an argument of models and of `generate`, and in
their outputs. No other file knows the difference. Models with their own code may keep the older name.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

from calmctl.errors import UserError

CACHE_NAMES = ("cache", "past_key_values")
# The name in the installed version.
CACHE = next(name for name in CACHE_NAMES if name in {field.name for field in fields(CausalLMOutputWithPast)})

AnyCache = TypeVar("AnyCache", bound=Cache)


def accepts(module: nn.Module, argument: str) -> bool:
    """Tell whether a module's forward has an argument of this name (BLOOM's has no `position_ids`)."""
    return argument in argument_names(type(module).forward)


@cache
def argument_names(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of a function's arguments."""
    return frozenset(inspect.signature(function).parameters)


def cache_argument(module: nn.Module) -> str | None:
    """Return the name of the cache as an argument of a module's forward; None = it takes none."""
    return next((name for name in (CACHE, *CACHE_NAMES) if accepts(module, name)), None)


def cache_of(output: ModelOutput) -> Cache | None:
    """Return the cache in the output of a model or of `generate`."""
    return getattr(output, CACHE, None)


def either_cache(past_key_values: AnyCache | None, cache: AnyCache | None) -> AnyCache | None:
    """Return the cache that a model was called with, by whichever name.

    Raises:
        UserError: two different caches.
    """
    if past_key_values is not None and cache is not None and past_key_values is not cache:
        raise UserError("past_key_values and cache are two names of one argument; give one of them")
    return past_key_values if cache is None else cache
