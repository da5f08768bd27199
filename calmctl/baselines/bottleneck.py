"""The bottleneck of series and parallel adapters, in the form of LLM-Adapters (arXiv 2304.01933)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.baselines.places import blocks_of
from calmctl.modeling.layers import device_of, hidden_size


class Bottleneck(nn.Module):
    """Down-projection, tanh, up-projection; no biases. It starts as zero, for its up-projection does."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width, bias=False)
        self.up = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor) -> Tensor:
        """Return what to add to states (..., dim), in their type."""
        return self.up(torch.tanh(self.down(states.to(self.down.weight.dtype)))).to(states.dtype)


def units(anchor: PreTrainedModel, where: str) -> dict[str, int]:
    """Return the parameters that one more of width adds to the bottleneck of each block."""
    return dict.fromkeys(blocks_of(anchor, where), 2 * hidden_size(anchor.config))


def bottlenecks(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> dict[str, Bottleneck]:
    """Return a new bottleneck for each of some blocks, where the block is."""
    dim = hidden_size(anchor.config)
    blocks = blocks_of(anchor)
    return {name: Bottleneck(dim, width).to(device_of(blocks[name].exit)) for name, width in sizes.items()}


def as_modules(adapters: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return adapters as one module; names of modules may hold no dots."""
    return nn.ModuleDict({name.replace(".", "_"): adapter for name, adapter in adapters.items()})
