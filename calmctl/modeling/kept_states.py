"""States that no trained parameter can change: those of the augs, and the anchor's up to its first bridge.

Whoever keeps them for an example spares the model their computation whenever it sees the example again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

from torch import Tensor, nn
from torch.nn.functional import pad

# What a layer returned: its states (batch, seq, dim), alone or in a tuple, as its architecture has it.
Output = Tensor | tuple[Tensor]


class KeptStates(TypedDict):
    """The states of a batch.

    Attributes:
        anchor: what the anchor's first connected layer returned, before any bridge added to it.
        augs: per aug, tapped layer -> states (batch, columns, d_aug).
    """

    anchor: Output
    augs: list[dict[int, Tensor]]


@contextmanager
def beginning_after(layers: Sequence[nn.Module], output: Output, is_ours: Callable[[], bool]) -> Iterator[None]:
    """Let the first layers of a decoder compute nothing within the block: the last of them returns `output`.

    The modules stay in their places, with the hooks around them; only their computation is replaced. Not for several
    such blocks over the same layers at once, in several threads.

    Args:
        is_ours: tells whether the forward pass that asks is that of the block.
    """
    *below, last = layers
    before = [(layer, layer.__dict__.get("forward")) for layer in layers]

    def instead(layer: nn.Module, returned: Callable[..., Any]) -> None:
        usual = layer.forward
        layer.forward = lambda *args, **known: (returned if is_ours() else usual)(*args, **known)

    try:
        for layer in below:
            instead(layer, _passed_on(isinstance(output, tuple)))
        instead(last, lambda *_args, **_known: output)
        yield
    finally:
        for layer, own in before:
            if own is None:
                del layer.__dict__["forward"]
            else:
                layer.__dict__["forward"] = own


def _passed_on(in_tuple: bool) -> Callable[..., Any]:
    def forward(*args: Any, **known: Any) -> Any:
        states = args[0] if args else known["hidden_states"]
        return (states,) if in_tuple else states

    return forward


def with_columns(states: Tensor, count: int) -> Tensor:
    """Return states (batch, columns, dim) of so many columns: more are cut off, and what is missing is zero."""
    return pad(states, (0, 0, 0, count - states.shape[1])) if states.shape[1] != count else states
