"""Find the attention and the feed-forward block of a decoder layer by structure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from calmctl.errors import UserError
from calmctl.modeling.calling import accepts

# Names of the cache as an argument of a layer's attention; no other part of the layer takes it.
CACHE_ARGUMENTS = ("cache", "past_key_values", "past_key_value", "layer_past")
# Name of a block's input states where they are not its first positional argument.
STATES = "hidden_states"


@dataclass(frozen=True)
class Block:
    """A part of a decoder layer that maps states (..., dim) to states.

    Attributes:
        entry: the module that takes the states.
        exit: the module that returns them; usually the same.
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
    """Return the feed-forward block of a decoder layer: its modules with matrices, attention excluded.

    Most layers keep it in one module (experts included), besides which a layer may have single linear layers (Gemma 4's
    input per layer); OPT has its two linear layers in the layer itself.

    Raises:
        UserError: no module, or several, could be meant.
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
    """Return the states in a block's output, which for attention is a tuple with its weights."""
    return output if isinstance(output, Tensor) else output[0]


def with_states(output: Tensor | tuple[Any, ...], states: Tensor) -> Tensor | tuple[Any, ...]:
    """Return a block's output with its states replaced."""
    return states if isinstance(output, Tensor) else (states, *output[1:])


def with_states_into(
    args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a block with its input states replaced."""
    return (args, {**kwargs, STATES: states}) if STATES in kwargs else ((states, *args[1:]), kwargs)
