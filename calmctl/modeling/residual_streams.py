"""Standardising residual streams of pretrained models, so that a bridge's matrices can read them.

Streams differ in scale by a factor of hundreds from model to model; a few dimensions are twenty times as large as the
others and hardly vary; the first token (the attention sink) can be a hundred times as large as others.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from calmctl.errors import UserError
from calmctl.modeling.alignment import prompts_before

EPSILON = 1e-6
# Lower limit of deviations, and weight of the prior: variances are computed as if `PRIOR` more tokens varied like the
# median dimension.
LEAST_DEVIATION, PRIOR = 1e-3, 4
# Limit of standardised values: a first token could overflow float16.
MOST = 1e4


class Standardize(nn.Module):
    """Makes all tokens equally large (RMS), then all dimensions vary equally around 0.

    Attributes:
        mean, deviation: (dim,) of RMS-normalised states; 0 and 1 before `calibrate`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def forward(self, states: Tensor) -> Tensor:
        """Return standardised states (..., dim) in their own dtype, computed in float32."""
        return ((normed(states) - self.mean) / self.deviation).clamp(-MOST, MOST).to(states.dtype)


def normed(states: Tensor) -> Tensor:
    """Return states (..., dim) scaled to a root mean square of 1, in float32."""
    return states.float() / scale_of(states)


def scale_of(states: Tensor) -> Tensor:
    """Return the root mean square (..., 1) of states (..., dim), in float32; above 0 even for all-zero padding."""
    return (states.float().square().mean(-1, keepdim=True) + EPSILON).sqrt()


class _Moments:
    """Sums of RMS-normalised states and of their squares, in float64 on the CPU."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, states: Tensor, is_real: Tensor) -> None:
        """Add states (batch, seq, dim): of each row all real tokens (batch, seq) but the first."""
        is_real = is_real.to(states.device)
        counted = normed(states)[is_real & (is_real.cumsum(1) > 1)].cpu().double()
        self.count += len(counted)
        self.sums, self.squares = self.sums + counted.sum(0), self.squares + counted.square().sum(0)

    def write(self, stream: Standardize) -> None:
        """Set mean and deviation of a stream; with fewer than two tokens leave them as they are."""
        if self.count < 2:
            return
        mean = cast(Tensor, self.sums) / self.count
        variance = (cast(Tensor, self.squares) / self.count - mean.square()).clamp(min=0)
        variance = (self.count * variance + PRIOR * variance.median()) / (self.count - 1 + PRIOR)
        stream.mean.copy_(mean)
        stream.deviation.copy_(variance.sqrt().clamp(min=LEAST_DEVIATION))


@torch.no_grad()
def calibrate(model: Any, bridges: Mapping[Any, bool], batches: Iterable[dict[str, Any]]) -> None:
    """Run a composed model with its bridges closed and set mean and deviation of the streams that they read.

    Args:
        bridges: those that standardise -> whether their aug shares the anchor's tokenizer.
        batches: arguments of the model's `forward`; labels only say where prompts end.

    Raises:
        UserError: the bridges are offloaded, so that their buffers cannot be written.
    """
    if any(buffer.is_meta for bridge in bridges for buffer in bridge.buffers()):
        raise UserError("calibrate: the bridges are offloaded; calibrate them before, or keep buffers in memory")
    seen = {bridge: (_Moments(), _Moments()) for bridge in bridges}
    states_of_aug: dict[Any, Tensor] = {}
    is_real = torch.empty(0)

    def look(bridge: Any, args: tuple[Any, ...], update: Tensor) -> Tensor:
        of_aug, of_anchor = seen[bridge]
        of_anchor.add(args[0], is_real)
        read, mask = states_of_aug.pop(bridge), args[4]
        reals = is_real[:, : read.shape[1]] if bridges[bridge] else torch.ones(read.shape[:2], dtype=torch.bool)
        of_aug.add(read, reals & mask.any(-2)[:, 0].to(reals.device) if mask is not None else reals)
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
            if model.config.aug_reads == "prompt" and batch.get("labels") is not None:
                known["prompt_lengths"] = prompts_before(batch["labels"])
            is_real = real_tokens(known)
            model(**known, use_cache=False, logits_to_keep=1)
    for bridge, (of_aug, of_anchor) in seen.items():
        of_aug.write(bridge.aug_stream)
        of_anchor.write(bridge.anchor_stream)


def real_tokens(batch: dict[str, Any]) -> Tensor:
    """Return which tokens (batch, seq) are neither padding nor the first of a packed document."""
    if batch.get("attention_mask") is not None:
        return batch["attention_mask"].bool()
    if batch.get("position_ids") is not None:
        return batch["position_ids"] > 0
    return torch.ones_like(batch["input_ids"], dtype=torch.bool)
