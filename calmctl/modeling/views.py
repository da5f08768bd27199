"""Views of a model that share all its parameters: with fewer layers, or with a decoder of known output."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from calmctl.modeling import layers


def first_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """Return a decoder that runs only the first `count` layers of a model and shares all its parameters.

    The view is a shallow copy: its layers, embeddings and buffers are the model's own objects, so hooks, device moves
    and weight changes affect both. It has no LM head.
    """
    whole, name = layers.find_layers(model)
    return cast(PreTrainedModel, _with_child(whole, name, getattr(whole, name)[:count]))


def head_of(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Return the function from a model's last hidden states (batch, seq, dim) to logits (batch, seq, vocabulary).

    It runs the model's own forward pass with a decoder that returns the given states, so that whatever an architecture
    does to its logits after the LM head (scaling, soft-capping) is done here too.
    """
    whole = layers.decoder(model)
    outermost, *path = next(name for name, module in model.named_modules() if module is whole).split(".")

    def head(states: Tensor) -> Tensor:
        answer = _Answer(cast(nn.Module, model._modules[outermost]), path, _States(last_hidden_state=states))
        view = _with_child(model, outermost, answer)
        # Not view(...): wrappers around this model's forward must not run twice.
        # Some models need the shape of an input; the states have it.
        return type(model).forward(view, inputs_embeds=states, use_cache=False, **layers.as_asked(model)).logits

    return head


class _States(BaseModelOutputWithPast):
    """Output of a decoder with nothing besides its last hidden states."""

    def __getattr__(self, name: str) -> None:
        """Return None for whatever else a model looks for (router logits, images)."""
        if name.startswith("__"):
            raise AttributeError(name)


class _Answer(nn.Module):
    """Replaces a module and its submodules along a path; each of them returns the same output when called."""

    def __init__(self, module: nn.Module, path: Sequence[str], answer: ModelOutput) -> None:
        super().__init__()
        # Plain attributes, so that the replaced module does not become a submodule.
        self.__dict__.update(stands_for=module, path=path, answer=answer)

    def forward(self, *_args: Any, **_kwargs: Any) -> ModelOutput:
        return self.answer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__dict__["stands_for"], name)
        return _Answer(found, self.path[1:], self.answer) if self.path and name == self.path[0] else found


def keep_positions(states: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the states of the positions to compute logits for, as transformers' models do.

    Args:
        states: (batch, seq, dim).
        logits_to_keep: number of last positions (0 = all), or indices (positions,) or (batch, positions), or a boolean
            mask (batch, seq), which gives (1, positions, dim).

    Returns:
        The states, contiguous: for a slice torch would multiply each row with its own copy of the head.
    """
    if isinstance(logits_to_keep, int):
        return states[:, -logits_to_keep:].contiguous()
    if logits_to_keep.ndim == 1:
        return states[:, logits_to_keep]
    if logits_to_keep.dtype == torch.bool:
        return states[logits_to_keep][None]
    return states.take_along_dim(logits_to_keep[..., None], dim=1)


def _with_child(module: nn.Module, name: str, child: nn.Module) -> nn.Module:
    """Return a shallow copy of a module with one child replaced."""
    view = copy.copy(module)
    view._modules = {**module._modules, name: child}
    return view
