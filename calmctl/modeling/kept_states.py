"""States that no trained parameter changes: those of the augs, and the anchor's up to its first bridge.

Kept for an example, they need not be computed again when the model sees the example again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

from torch import Tensor, nn
from torch.nn.functional import pad

# Output of a layer: states (batch, seq, dim), alone or in a tuple, depending on the architecture.
Output = Tensor | tuple[Tensor]


class KeptStates(TypedDict):
    """The kept states of a batch.

    Attributes:
        anchor: output of the anchor's first connected layer, before any bridge added to it.
        augs: per aug, tapped layer -> states (batch, columns, d_aug).
    """

    anchor: Output
    augs: list[dict[int, Tensor]]


@contextmanager
def beginning_after(layers: Sequence[nn.Module], output: Output, is_ours: Callable[[], bool]) -> Iterator[None]:
    """Skip the first layers of a decoder within the block: the last of them returns `output`.

    Only their `forward` is replaced; the modules and their hooks stay. Threads must not use this on the same layers at
    once.

    Args:
        is_ours: tells whether the forward pass under way is that of the block.
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
    """Return states (batch, columns, dim) cut off or padded with zeros to `count` columns."""
    return pad(states, (0, 0, 0, count - states.shape[1])) if states.shape[1] != count else states
