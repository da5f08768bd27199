"""Series adapters (Houlsby et al. 2019): a bottleneck after a block, h <- h + B(h)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.baselines.bottleneck import as_modules, bottlenecks
from calmctl.baselines.places import blocks_of
from calmctl.modeling.blocks import states_of, with_states


def attach(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> nn.ModuleDict:
    """Put a bottleneck after each of some blocks, and return them."""
    adapters, blocks = bottlenecks(anchor, sizes), blocks_of(anchor)
    for name, adapter in adapters.items():
        blocks[name].exit.register_forward_hook(partial(_after, adapter))
    return as_modules(adapters)


def _after(adapter: nn.Module, _module: nn.Module, _args: Any, output: Any) -> Tensor | tuple[Any, ...]:
    states = states_of(output)
    return with_states(output, states + adapter(states))
