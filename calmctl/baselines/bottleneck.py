"""Series and parallel adapters: a bottleneck after a block or beside it, as in LLM-Adapters (arXiv 2304.01933).

Series (Houlsby et al. 2019): h <- h + B(h). Parallel (He et al. 2022): h <- block(x) + B(x).
"""

from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.baselines.places import as_modules, blocks_of
from calmctl.modeling.blocks import states_into, states_of, with_states
from calmctl.modeling.layers import device_of, hidden_size

# The input of the block being computed (blocks are not nested), one per thread.
_entered: ContextVar[Tensor | None] = ContextVar("calmctl_entered_states", default=None)


class Bottleneck(nn.Module):
    """Down-projection, tanh, up-projection; no biases. The up-projection starts at zero, so the output does too."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor) -> Tensor:
        """Return the update of states (..., dim), in their dtype."""
        return self.up(torch.tanh(self.down(states.to(self.down.weight.dtype)))).to(states.dtype)


def units(anchor: PreTrainedModel, where: str) -> dict[str, int]:
    """Return the parameters per unit of width of each block's bottleneck."""
    return dict.fromkeys(blocks_of(anchor, where), 2 * hidden_size(anchor.config))


def attach_after(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> nn.ModuleDict:
    """Put a bottleneck after each of some blocks (series), and return them."""
    adapters, blocks = _bottlenecks(anchor, sizes), blocks_of(anchor)
    for name, adapter in adapters.items():
        blocks[name].exit.register_forward_hook(partial(_after, adapter))
    return as_modules(adapters)


def attach_beside(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> nn.ModuleDict:
    """Put a bottleneck beside each of some blocks (parallel), and return them."""
    adapters, blocks = _bottlenecks(anchor, sizes), blocks_of(anchor)
    for name, adapter in adapters.items():
        blocks[name].entry.register_forward_pre_hook(_enter, with_kwargs=True)
        blocks[name].exit.register_forward_hook(partial(_beside, adapter))
    return as_modules(adapters)


def _bottlenecks(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> dict[str, Bottleneck]:
    """Return a new bottleneck for each of some blocks, on the block's device."""
    dim = hidden_size(anchor.config)
    blocks = blocks_of(anchor)
    return {name: Bottleneck(dim, width).to(device_of(blocks[name].exit)) for name, width in sizes.items()}


def _after(adapter: nn.Module, _module: nn.Module, _args: Any, output: Any) -> Tensor | tuple[Any, ...]:
    states = states_of(output)
    return with_states(output, states + adapter(states))


def _enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _entered.set(states_into(args, kwargs))


def _beside(adapter: nn.Module, _module: nn.Module, _args: Any, output: Any) -> Tensor | tuple[Any, ...]:
    entered = _entered.get()
    assert entered is not None
    _entered.set(None)
    states = states_of(output)
    # Some mixtures of experts return the tokens of all rows as one.
    return with_states(output, states + adapter(entered).reshape(states.shape))
