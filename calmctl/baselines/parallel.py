"""Parallel adapters (He et al. 2022): a bottleneck beside a block, h <- block(x) + B(x)."""

from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.baselines.bottleneck import as_modules, bottlenecks
from calmctl.baselines.places import blocks_of
from calmctl.modeling.blocks import states_into, states_of, with_states

# What went into the block that is being computed; blocks do not lie in each other. Threads do not see each other's.
_entered: ContextVar[Tensor | None] = ContextVar("calmctl_entered_states", default=None)


def attach(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> nn.ModuleDict:
    """Put a bottleneck beside each of some blocks, and return them."""
    adapters, blocks = bottlenecks(anchor, sizes), blocks_of(anchor)
    for name, adapter in adapters.items():
        blocks[name].entry.register_forward_pre_hook(_enter, with_kwargs=True)
        blocks[name].exit.register_forward_hook(partial(_beside, adapter))
    return as_modules(adapters)


def _enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _entered.set(states_into(args, kwargs))


def _beside(adapter: nn.Module, _module: nn.Module, _args: Any, output: Any) -> Tensor | tuple[Any, ...]:
    entered = _entered.get()
    assert entered is not None
    _entered.set(None)
    states = states_of(output)
    # Some mixtures of experts return one long row of tokens.
    return with_states(output, states + adapter(entered).reshape(states.shape))
