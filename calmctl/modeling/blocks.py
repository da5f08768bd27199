"""Where the attention and the feed-forward block of a decoder layer are: found by structure, as the layers are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from calmctl.errors import UserError
from calmctl.modeling.calling import accepts

# What the attention of a layer calls the cache, which nothing else in it takes.
CACHE_ARGUMENTS = ("cache", "past_key_values", "past_key_value", "layer_past")
# What a block calls the states that it reads, where they are not its first argument.
STATES = "hidden_states"


@dataclass(frozen=True)
class Block:
    """A part of a decoder layer that states (..., dim) go into and come out of.

    Attributes:
        entry: the module that they go into.
        exit: the module that they come out of; mostly the same.
    """

    entry: nn.Module
    exit: nn.Module


def attention_of(layer: nn.Module) -> nn.Module:
    """Return the attention of a decoder layer.

    Raises:
        UserError: not exactly one child of the layer takes a cache.
    """
    found = [child for child in layer.children() if any(accepts(child, name) for name in CACHE_ARGUMENTS)]
    if len(found) != 1:
        raise UserError(f"{type(layer).__name__}: {len(found)} of its parts take a cache; which is its attention?")
    return found[0]


def feed_forward_of(layer: nn.Module) -> Block:
    """Return the feed-forward block of a decoder layer: what has matrices beside the attention.

    Most layers keep it in one module (experts included), beside which a layer may have single matrices (Gemma 4's input
    per layer); OPT has its two matrices in the layer itself.

    Raises:
        UserError: several modules could be meant.
    """
    attention = attention_of(layer)
    others = [child for child in layer.children() if child is not attention]
    found = [child for child in others if any(parameter.ndim > 1 for parameter in child.parameters())]
    if len(found) == 1:
        return Block(found[0], found[0])
    if len(found) == 2 and _is_up_and_down(found):
        return Block(found[0], found[1])
    if len(whole := [child for child in found if not isinstance(child, nn.Linear)]) == 1:
        return Block(whole[0], whole[0])
    names = ", ".join(type(child).__name__ for child in found) or "nothing"
    raise UserError(f"{type(layer).__name__}: its feed-forward block is not known (it has {names} with matrices)")


def _is_up_and_down(modules: Sequence[nn.Module]) -> bool:
    up, down = modules
    return (
        isinstance(up, nn.Linear)
        and isinstance(down, nn.Linear)
        and (up.in_features, up.out_features) == (down.out_features, down.in_features)
    )


def states_into(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """Return the states that a block was called with."""
    return kwargs[STATES] if STATES in kwargs else args[0]


def states_of(output: Tensor | tuple[Any, ...]) -> Tensor:
    """Return the states that came out of a block: attention returns its weights beside them."""
    return output if isinstance(output, Tensor) else output[0]


def with_states(output: Tensor | tuple[Any, ...], states: Tensor) -> Tensor | tuple[Any, ...]:
    """Return what came out of a block, with other states."""
    return states if isinstance(output, Tensor) else (states, *output[1:])
