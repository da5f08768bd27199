"""Gradient checkpointing through frozen layers: their activations are computed again in the backward pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


class RecomputingMixin:
    """`gradient_checkpointing_enable` of transformers for a composed model.

    Transformers' own checkpointing acts only on layers in train mode, but frozen bases stay in eval mode. It would also
    recompute hooks; here bridges, which are hooks, run once.
    """

    supports_gradient_checkpointing = True
    gradient_checkpointing = False
    _every = 1
    _checkpoint: Callable[..., Any] = staticmethod(checkpoint)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        every_n_layers: int = 1,
    ) -> None:
        """Store transformers' checkpointing function for `recomputing`."""
        self.gradient_checkpointing, self._every = enable, every_n_layers
        self._checkpoint = gradient_checkpointing_func

    def enable_input_require_grads(self) -> None:
        """Do nothing: gradients start at the bridges, and layers below the first one need no graph."""

    @contextmanager
    def recomputing(self, layers: Iterable[nn.Module]) -> Iterator[None]:
        """Let every n-th of these layers keep only its inputs for the backward pass, within the block."""
        layers = [layer for index, layer in enumerate(layers) if index % self._every == 0]
        own = [layer.__dict__.get("forward") for layer in layers]
        for layer in layers:
            # Non-reentrant checkpointing takes inputs without gradients and keyword arguments.
            layer.forward = partial(self._checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer, forward in zip(layers, own, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward
