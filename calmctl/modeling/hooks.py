"""Hooks: how the forward pass of a composed model reads its augs' layers and adds to its anchor's.

Bases are left as they are but for forward hooks on the connected layers. A hook acts only while a forward pass of its
own model is under way in the same thread, and is removed when that model is gone.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.modeling import layers

if TYPE_CHECKING:
    from calmctl.modeling.composed import ComposedModelForCausalLM


@dataclass
class ForwardPass:
    """What the hooks need to know of the forward call that is under way.

    Attributes:
        aug_states: layer index -> output states (batch, seq, d_aug) of the aug that is being read.
        tapping: index of that aug, or None.
        bridging: whether the anchor is running.
        keys_values: (aug, bridge) -> keys and values (batch, heads, aug_seq, head_dim).
        masks: per aug (batch, 1, seq, aug_seq), True = may be attended; None = see `Bridge.forward`.
        positions: (batch, seq) positions of the new tokens.
    """

    model: "ComposedModelForCausalLM"
    aug_states: dict[int, Tensor] = field(default_factory=dict)
    tapping: int | None = None
    bridging: bool = False
    keys_values: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    masks: list[Tensor | None] = field(default_factory=list)
    positions: Tensor = field(default_factory=lambda: torch.empty(0))


# Per thread and task, so that forwards of one model may overlap; hooks of a shared base tell the models apart.
_current: ContextVar[ForwardPass | None] = ContextVar("calmctl_forward_pass", default=None)


def _pass_of(identity: object) -> ForwardPass | None:
    current = _current.get()
    return current if current is not None and current.model.identity is identity else None


def _tap(identity: object, aug_index: int, layer_index: int, _module: nn.Module, _args: Any, output: Any) -> None:
    """Keep the states that leave a tapped layer of an aug (a forward hook)."""
    current = _pass_of(identity)
    if current is not None and current.tapping == aug_index:
        current.aug_states[layer_index] = layers.layer_output(output)


def _bridge(
    identity: object, bridges: Sequence[tuple[int, int]], _module: nn.Module, _args: Any, output: Any
) -> Tensor | tuple[Any, ...] | None:
    """Add the updates of all bridges (aug, bridge) that end at a layer of the anchor to its output (a forward hook).

    Every bridge asks with the states as the layer left them, so that the order of the augs does not matter.
    """
    current = _pass_of(identity)
    if current is None or not current.bridging:
        return None
    states = layers.layer_output(output)
    positions, updated = current.positions.to(states.device), states
    eager = getattr(current.model.anchor.config, "_attn_implementation", None) == "eager"
    for aug_index, bridge_index in bridges:
        keys, values = current.keys_values[aug_index, bridge_index]
        bridge = current.model.bridge_of(aug_index, bridge_index)
        mask = current.masks[aug_index]
        mask = mask.to(states.device) if mask is not None else None
        updated = updated + bridge(states, positions, keys, values, mask, eager)
    return layers.with_layer_output(output, updated)


@contextmanager
def new_pass(model: "ComposedModelForCausalLM") -> Iterator[ForwardPass]:
    """Begin a forward pass of a model; it ends with the block, however the block ends."""
    current = ForwardPass(model)
    token = _current.set(current)
    try:
        yield current
    finally:
        _current.reset(token)


def install_hooks(model: "ComposedModelForCausalLM", augs: Sequence[PreTrainedModel]) -> None:
    """Put a hook on every connected layer of a model's bases."""
    anchor_layers, handles = layers.decoder_layers(model.anchor), []
    ending: dict[int, list[tuple[int, int]]] = {}
    for aug_index, (aug, pairs) in enumerate(zip(augs, model.connections, strict=True)):
        aug_layers = layers.decoder_layers(aug)
        for layer_index in sorted({pair.aug_layer for pair in pairs}):
            hook = partial(_tap, model.identity, aug_index, layer_index)
            handles.append(aug_layers[layer_index].register_forward_hook(hook))
        for bridge_index, pair in enumerate(pairs):
            ending.setdefault(pair.anchor_layer, []).append((aug_index, bridge_index))
    for layer_index, bridges in ending.items():
        handles.append(anchor_layers[layer_index].register_forward_hook(partial(_bridge, model.identity, bridges)))
    for handle in handles:
        weakref.finalize(model, handle.remove)
