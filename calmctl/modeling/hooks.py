"""Forward hooks that read the augs' tapped layers and add the bridges' updates to the anchor's layers.

Otherwise the bases are left as they are. A hook acts only during a forward pass of its own model in the same thread,
and is removed when that model is deleted.
"""

import operator
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from calmctl.modeling import layers
from calmctl.modeling.bridge import Bridge
from calmctl.modeling.connections import Connection
from calmctl.modeling.kept_states import KeptStates


@dataclass
class ForwardPass:
    """The forward pass under way, as the hooks need to know it.

    Attributes:
        identity: tells the hooks of one model from those of others.
        bridges: [aug][connection].
        eager: see `Bridge.forward`.
        aug_states: layer index -> output states (batch, seq, d_aug) of the aug that is running.
        tapping: index of that aug, or None.
        bridging: whether the anchor is running.
        keys_values: (aug, bridge) -> keys and values (batch, heads, aug_seq, head_dim).
        masks: per aug (batch, 1, seq, aug_seq), True = may be attended; None = see `Bridge.forward`.
        positions: (batch, seq) positions of the new tokens.
        kept: states to use instead of computing them.
        keeping: where to store such states, or None.
    """

    identity: object
    bridges: nn.ModuleList
    eager: bool = False
    aug_states: dict[int, Tensor] = field(default_factory=dict)
    tapping: int | None = None
    bridging: bool = False
    keys_values: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    masks: list[Tensor | None] = field(default_factory=list)
    positions: Tensor = field(default_factory=lambda: torch.empty(0))
    kept: KeptStates | None = None
    keeping: KeptStates | None = None

    def bridge(self, aug_index: int, bridge_index: int) -> Bridge:
        """Return one bridge; `bridge_index` counts the aug's connections."""
        return cast(Bridge, cast(nn.ModuleList, self.bridges[aug_index])[bridge_index])


# Per thread and async task, so that forward passes of one model may overlap.
_current: ContextVar[ForwardPass | None] = ContextVar("calmctl_forward_pass", default=None)


def _pass_of(identity: object) -> ForwardPass | None:
    current = _current.get()
    return current if current is not None and current.identity is identity else None


def is_under_way(current: ForwardPass) -> bool:
    """Tell whether this is the forward pass under way in this thread."""
    return _current.get() is current


def _tap(identity: object, aug_index: int, layer_index: int, _module: nn.Module, _args: Any, output: Any) -> None:
    """Store the output states of a tapped aug layer (a forward hook)."""
    current = _pass_of(identity)
    if current is not None and current.tapping == aug_index:
        current.aug_states[layer_index] = layers.layer_output(output)


def _bridge(
    identity: object, bridges: Sequence[tuple[int, int]], _module: nn.Module, _args: Any, output: Any
) -> Tensor | tuple[Any, ...] | None:
    """Add the updates of all bridges (aug, bridge) that end at an anchor layer to its output (a forward hook).

    Every bridge computes its queries from the layer's own output, so the order of the augs does not matter.
    """
    current = _pass_of(identity)
    if current is not None and current.keeping is not None:
        states = layers.layer_output(output)
        current.keeping["anchor"] = (states,) if isinstance(output, tuple) else states
    if current is None or not current.bridging:
        return None
    states = layers.layer_output(output)
    positions, updated = current.positions.to(states.device), states
    for aug_index, bridge_index in bridges:
        keys, values = current.keys_values[aug_index, bridge_index]
        mask = current.masks[aug_index]
        mask = mask.to(states.device) if mask is not None else None
        bridge = current.bridge(aug_index, bridge_index)
        updated = updated + bridge(states, positions, keys, values, mask, current.eager)
    return layers.with_layer_output(output, updated)


@contextmanager
def new_pass(current: ForwardPass) -> Iterator[ForwardPass]:
    """Make this the forward pass under way within the block."""
    token = _current.set(current)
    try:
        yield current
    finally:
        _current.reset(token)


class Hooks:
    """The hooks of one composed model, on the connected layers of its bases.

    Args:
        identity: tells the model from others; a shallow copy of the model shares it, a deep copy has its own.
    """

    def __init__(self, identity: object, connections: Sequence[Sequence[Connection]]) -> None:
        self._taps: dict[tuple[int, int], Any] = {}
        ending: dict[int, list[tuple[int, int]]] = {}
        for aug_index, pairs in enumerate(connections):
            for layer_index in sorted({pair.aug_layer for pair in pairs}):
                self._taps[aug_index, layer_index] = partial(_tap, identity, aug_index, layer_index)
            for bridge_index, pair in enumerate(pairs):
                ending.setdefault(pair.anchor_layer, []).append((aug_index, bridge_index))
        self._bridges = {index: partial(_bridge, identity, bridges) for index, bridges in ending.items()}
        self._hooked: list[nn.Module] = []
        self._handles: list[RemovableHandle] = []
        weakref.finalize(self, _remove, self._handles)

    def follow(self, anchor: nn.ModuleList, augs: Sequence[nn.ModuleList]) -> None:
        """Put the hooks on the modules that are now the connected layers.

        These change: activation checkpointing, sharding and compilation wrap layers. A hook has to sit on the wrapper;
        below it the bridge would count as part of the layer and be recomputed outside of its forward pass.

        Args:
            anchor, augs: all layers of each base.
        """
        tapped = [augs[aug_index][layer_index] for aug_index, layer_index in self._taps]
        places = tapped + [anchor[layer_index] for layer_index in self._bridges]
        if all(map(operator.is_, places, self._hooked)) and self._hooked:
            return
        _remove(self._handles)
        hooks = (*self._taps.values(), *self._bridges.values())
        # First of all hooks, so that those of transformers record hidden states with the bridges' updates.
        self._handles += [
            place.register_forward_hook(hook, prepend=True) for place, hook in zip(places, hooks, strict=True)
        ]
        self._hooked = places


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()
