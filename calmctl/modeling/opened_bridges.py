"""Bridges for the self-check: closed, or opened so wide that zeros hide no fault."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from calmctl.modeling.bridge import Bridge
from calmctl.modeling.composed import ComposedModelForCausalLM

# Standard deviation of attention scores in the check, large enough for bridges to prefer some tokens to others.
SHARPNESS = 2.0


@contextmanager
def restored(model: ComposedModelForCausalLM) -> Iterator[None]:
    """Clear gradients and set eval mode; afterwards restore the bridges' weights, all gradients and the mode."""
    weights = {name: each.detach().clone() for name, each in model.stored_tensors().items()}
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    was_training = model.training
    for parameter, _ in gradients:
        parameter.grad = None
    model.eval()
    try:
        yield
    finally:
        for name, each in model.stored_tensors().items():
            each.data.copy_(weights[name])
        for parameter, gradient in gradients:
            parameter.grad = gradient
        model.train(was_training)


@torch.no_grad()
def close(model: ComposedModelForCausalLM) -> None:
    """Let the bridges add nothing."""
    for bridge in _bridges(model):
        bridge.output.weight.zero_()


@torch.no_grad()
def open_up(model: ComposedModelForCausalLM, forward: Callable[[], Tensor]) -> Tensor:
    """Give bridges random outputs, scaled to the states that they are added to in one forward pass; return its logits.

    New bridges attend to all tokens alike, so their queries are scaled up until they prefer some.
    """
    draws = torch.Generator().manual_seed(3)
    for bridge in _bridges(model):
        weight = bridge.output.weight
        weight.copy_(torch.randn(weight.shape, generator=draws))
        if bridge.gate is not None:
            bridge.gate.fill_(1.0)

    def choose(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        bridge, (states, positions, keys) = cast(Bridge, module), args[:3]
        queries = bridge.queries(states, positions)
        scores = (queries @ keys.transpose(-1, -2)).float() * keys.shape[-1] ** -0.5
        _scale(bridge.query, SHARPNESS, scores.std())

    def fit(module: nn.Module, args: tuple[Tensor, ...], update: Tensor) -> Tensor:
        # Median over tokens: the first token's states may be a hundred times as large as all others'.
        wanted, given = (each.float().square().mean(-1).sqrt().median() for each in (args[0], update))
        return update * _scale(cast(Bridge, module).output, float(wanted), given).to(update.dtype)

    handles = [handle for bridge in _bridges(model) for handle in (
        bridge.register_forward_pre_hook(choose), bridge.register_forward_hook(fit)
    )]  # fmt: skip
    try:
        return forward()
    finally:
        for handle in handles:
            handle.remove()


def _bridges(model: ComposedModelForCausalLM) -> list[Bridge]:
    return [module for module in model.bridges.modules() if isinstance(module, Bridge)]


def _scale(layer: nn.Linear, wanted: float, given: Tensor) -> Tensor:
    """Scale a layer so that its output has the wanted size; return the factor."""
    factor = (wanted / given.clamp(min=torch.finfo(torch.float32).tiny)).nan_to_num(posinf=1.0)
    layer.weight.mul_(factor.to(layer.weight.device))
    return factor
