"""Residual streams of pretrained models, read in a way that suits a matrix.

They differ in scale by a factor of hundreds from model to model, a few of their dimensions are twenty times as large as
the others and hardly vary, and their first token, on which attention rests, can be a hundred times as large as others.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

EPSILON = 1e-6
# Dimensions that hardly vary are not blown up beyond this.
LEAST_DEVIATION = 1e-3


class Standardize(nn.Module):
    """Makes every token as large as any other (RMS), and then every dimension vary as much as any other.

    Attributes:
        mean, deviation: (dim,) of RMS-normalised states; 0 and 1 until `calibrate` has seen some.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def forward(self, states: Tensor) -> Tensor:
        """Return states (..., dim) in their own type; what is large in them is computed with in float32."""
        return ((normed(states) - self.mean) / self.deviation).to(states.dtype)


def normed(states: Tensor) -> Tensor:
    """Return states (..., dim) of root mean square 1, in float32."""
    return states.float() * torch.rsqrt(states.float().square().mean(-1, keepdim=True) + EPSILON)


def scale_of(states: Tensor) -> Tensor:
    """Return the root mean square (..., 1) of states (..., dim), in float32."""
    return states.float().square().mean(-1, keepdim=True).sqrt()


class _Moments:
    """Sums of RMS-normalised states, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, states: Tensor, is_real: Tensor | None) -> None:
        """Take in states (batch, seq, dim), each row without its first real token.

        Args:
            is_real: (batch, seq); None = all are.
        """
        real = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if is_real is None else is_real
        counted = normed(states)[real & (real.cumsum(1) > 1)].double()
        self.count += len(counted)
        self.sums, self.squares = self.sums + counted.sum(0), self.squares + counted.square().sum(0)

    def write(self, stream: Standardize) -> None:
        """Let a stream be read by what was seen; by less than two tokens it is left as it is."""
        if self.count < 2:
            return
        mean = cast(Tensor, self.sums) / self.count
        variance = (
            (cast(Tensor, self.squares) / self.count - mean.square()).clamp(min=0) * self.count / (self.count - 1)
        )
        stream.mean.copy_(mean)
        stream.deviation.copy_(variance.sqrt().clamp(min=LEAST_DEVIATION))


@torch.no_grad()
def calibrate(model: nn.Module, bridges: Iterable[Any], batches: Iterable[dict[str, Any]]) -> None:
    """Find how the streams of a composed model vary, with its bridges closed, and let them read accordingly.

    Args:
        bridges: those that standardise.
        batches: arguments of the model's `forward`; labels do not matter.
    """
    seen = {bridge: (_Moments(), _Moments()) for bridge in bridges}
    states_of_aug: dict[Any, Tensor] = {}
    is_real: Tensor | None = None

    def look(bridge: Any, args: tuple[Any, ...], update: Tensor) -> Tensor:
        states, mask = args[0], args[4]
        of_aug, of_anchor = seen[bridge]
        of_anchor.add(states, is_real.to(states.device) if is_real is not None else None)
        of_aug.add(states_of_aug.pop(bridge), mask.any(-2)[:, 0] if mask is not None else None)
        return torch.zeros_like(update)

    was_training = model.training
    model.eval()
    with ExitStack() as stack:
        stack.callback(model.train, was_training)
        for bridge in seen:
            hook = lambda _m, args, bridge=bridge: states_of_aug.__setitem__(bridge, args[0])  # noqa: E731
            stack.callback(bridge.aug_stream.register_forward_pre_hook(hook).remove)
            stack.callback(bridge.register_forward_hook(look).remove)
        for batch in batches:
            known = {name: value for name, value in batch.items() if name not in ("labels", "num_items_in_batch")}
            is_real = known["attention_mask"].bool() if known.get("attention_mask") is not None else None
            model(**known, use_cache=False, logits_to_keep=1)
    for bridge, (of_aug, of_anchor) in seen.items():
        of_aug.write(bridge.aug_stream)
        of_anchor.write(bridge.anchor_stream)
