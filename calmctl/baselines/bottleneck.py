"""Series and parallel adapters: a bottleneck before, after or beside a block or a single linear layer.

Series (Houlsby et al. 2019): h <- h + B(h), on what a block or layer returns ("after") or takes ("before"). Parallel
(He et al. 2022): h <- block(x) + B(x). LLM-Adapters (arXiv 2304.01933) calls all of the former series adapters.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from calmctl.baselines.options import AROUND, BEFORE, FEED_FORWARD, AdapterOptions
from calmctl.baselines.places import as_modules, blocks_of, targeted, widths_of
from calmctl.errors import UserError
from calmctl.modeling.blocks import Block, states_into, states_of, with_states, with_states_into
from calmctl.modeling.layers import device_of, hidden_size

# Ends the names of adapters that stand before a module; without it, they stand after it or beside it.
_BEFORE = ":before"
# Standard deviation of both matrices in LLM-Adapters' code, whose start is therefore not the identity.
PUBLISHED_STD = 0.02
# The input of the block being computed (blocks are not nested), one per thread.
_entered: ContextVar[Tensor | None] = ContextVar("calmctl_entered_states", default=None)


@dataclass(frozen=True)
class Site:
    """A place for one bottleneck: the block (or linear layer) that it adapts, and the widths of its states.

    Attributes:
        taken: width of the states that the bottleneck reads.
        given: width of what it adds.
    """

    block: Block
    taken: int
    given: int


class Bottleneck(nn.Module):
    """Down-projection, activation, up-projection; no biases.

    The up-projection starts at zero, and so does what it adds, unless `options.init` is `published`.
    """

    def __init__(self, taken: int, width: int, given: int, options: AdapterOptions) -> None:
        super().__init__()
        self.down = nn.Linear(taken, width, bias=False)
        self.up = nn.Linear(width, given, bias=False)
        self.activation = ACT2FN[options.activation]
        self.dropout = nn.Dropout(options.dropout)
        self.scaling = options.scaling or 1.0
        if options.init == "published":
            for matrix in (self.down, self.up):
                nn.init.normal_(matrix.weight, std=PUBLISHED_STD)
        else:
            nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor) -> Tensor:
        """Return the update (..., given) for states (..., taken), in their dtype."""
        read = self.dropout(states.to(self.down.weight.dtype))
        return (self.up(self.activation(self.down(read))) * self.scaling).to(states.dtype)


def series_units(anchor: PreTrainedModel, options: AdapterOptions) -> dict[str, int]:
    """Return the parameters per unit of width of each series adapter."""
    return {name: site.taken + site.given for name, site in _series_sites(anchor, options).items()}


def parallel_units(anchor: PreTrainedModel, options: AdapterOptions) -> dict[str, int]:
    """Return the parameters per unit of width of each parallel adapter."""
    return {name: site.taken + site.given for name, site in _parallel_sites(anchor, options).items()}


def attach_series(anchor: PreTrainedModel, sizes: Mapping[str, int], options: AdapterOptions) -> nn.ModuleDict:
    """Put bottlenecks before or after some blocks or layers, and return them."""
    sites = _series_sites(anchor, options)
    adapters = _bottlenecks(sites, sizes, options)
    for name, adapter in adapters.items():
        if name.endswith(_BEFORE):
            sites[name].block.entry.register_forward_pre_hook(partial(_before, adapter), with_kwargs=True)
        else:
            sites[name].block.exit.register_forward_hook(partial(_after, adapter))
    return as_modules(adapters)


def attach_parallel(anchor: PreTrainedModel, sizes: Mapping[str, int], options: AdapterOptions) -> nn.ModuleDict:
    """Put bottlenecks beside some blocks or layers, and return them."""
    sites = _parallel_sites(anchor, options)
    adapters = _bottlenecks(sites, sizes, options)
    for name, adapter in adapters.items():
        sites[name].block.entry.register_forward_pre_hook(_enter, with_kwargs=True)
        sites[name].block.exit.register_forward_hook(partial(_beside, adapter))
    return as_modules(adapters)


def _series_sites(anchor: PreTrainedModel, options: AdapterOptions) -> dict[str, Site]:
    """Return where series adapters stand, by the module's name; those before it have `_BEFORE` at the end.

    Raises:
        UserError: a target is no layer of an MLP that takes or gives the model's states.
    """
    dim, found = hidden_size(anchor.config), dict[str, Site]()
    if options.targets:
        in_mlp = blocks_of(anchor, FEED_FORWARD)
        for name, linear in targeted(anchor, "series", options.targets).items():
            taken, given = widths_of(linear)
            if not _is_in(linear, in_mlp):
                raise UserError(f"targets: {name} is in no MLP, and series adapters of single layers go into MLPs only")
            if dim not in (taken, given) or taken == given:
                raise UserError(
                    f"targets: {name} maps {taken} features to {given}; series adapters go to layers that either read "
                    f"or return the model's {dim}"
                )
            # As in LLM-Adapters: the first layers of an MLP get theirs before, the last one after.
            side = _BEFORE if taken == dim else ""
            found[name + side] = Site(Block(linear, linear), dim, dim)
        return found
    for name, block in blocks_of(anchor, FEED_FORWARD if options.where in (BEFORE, AROUND) else options.where).items():
        if options.where in (BEFORE, AROUND):
            found[name + _BEFORE] = Site(block, dim, dim)
        if options.where != BEFORE:
            found[name] = Site(block, dim, dim)
    return found


def _parallel_sites(anchor: PreTrainedModel, options: AdapterOptions) -> dict[str, Site]:
    """Return what parallel adapters stand beside, by the module's name."""
    if options.targets:
        linears = targeted(anchor, "parallel", options.targets)
        return {name: Site(Block(linear, linear), *widths_of(linear)) for name, linear in linears.items()}
    dim = hidden_size(anchor.config)
    return {name: Site(block, dim, dim) for name, block in blocks_of(anchor, options.where).items()}


def _is_in(linear: nn.Module, blocks: Mapping[str, Block]) -> bool:
    parts = (part for block in blocks.values() for part in (block.entry, block.exit))
    return any(module is linear for part in parts for module in part.modules())


def _bottlenecks(sites: Mapping[str, Site], sizes: Mapping[str, int], options: AdapterOptions) -> dict[str, Bottleneck]:
    """Return a new bottleneck for each of some sites, on the device of its block."""
    return {
        name: Bottleneck(sites[name].taken, width, sites[name].given, options).to(device_of(sites[name].block.exit))
        for name, width in sizes.items()
    }


def _before(
    adapter: nn.Module, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    states = states_into(args, kwargs)
    return with_states_into(args, kwargs, states + adapter(states))


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
