"""Where the decoder layers of a Hugging Face causal language model are: the only file that knows architectures.

Nothing here is a list of families. Every decoder-only model of transformers keeps its blocks in one
`nn.ModuleList` of `num_hidden_layers` entries below `get_decoder()`, and every block returns its output states
either as a tensor or as the first entry of a tuple.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from calmctl.errors import UserError


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the part of a configuration that describes the text decoder."""
    return config.get_text_config(decoder=True)


def num_layers(config: PreTrainedConfig) -> int:
    """Return the number of decoder layers that a configuration describes."""
    return int(text_config(config).num_hidden_layers)


def hidden_size(config: PreTrainedConfig) -> int:
    """Return the width of the residual stream."""
    return int(text_config(config).hidden_size)


def num_heads(config: PreTrainedConfig) -> int:
    """Return the number of attention (query) heads."""
    return int(text_config(config).num_attention_heads)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers of a model, in order.

    Raises:
        UserError: the model has no single ModuleList of `num_hidden_layers` entries.
    """
    return getattr(model.get_decoder(), _layers_name(model))


def _layers_name(model: PreTrainedModel) -> str:
    decoder, expected = model.get_decoder(), num_layers(model.config)
    names = [
        name for name, child in decoder.named_children() if isinstance(child, nn.ModuleList) and len(child) == expected
    ]
    if len(names) != 1:
        raise UserError(
            f"{type(model).__name__}: expected one ModuleList of {expected} decoder layers below "
            f"{type(decoder).__name__}, found {len(names)}; this architecture cannot be composed"
        )
    return names[0]


def first_layers(model: PreTrainedModel, count: int) -> nn.Module:
    """Return a decoder that runs only the first `count` layers of a model and shares all its parameters.

    The view is a shallow copy: its blocks, embeddings and buffers are the model's own objects, so hooks, device
    moves and weight changes are seen by both. It has no LM head.
    """
    return _view(model.get_decoder(), [_layers_name(model)], nn.ModuleList(decoder_layers(model)[:count]))


def head_of(model: PreTrainedModel, decoded: ModelOutput) -> Callable[[Tensor], Tensor]:
    """Return the function from output states (rows, dim) of a model's decoder to logits (rows, vocabulary).

    It is the model's own forward pass on a view whose decoder has answered already, so that whatever an architecture
    does to its logits after the LM head (scaling, soft-capping) is done here too.

    Args:
        decoded: what the decoder returned; its states are replaced.
    """
    decoder = model.get_decoder()
    path = next(name for name, module in model.named_modules() if module is decoder).split(".")

    def head(states: Tensor) -> Tensor:
        view = _view(model, path, _Answer(dataclasses.replace(cast(Any, decoded), last_hidden_state=states[None])))
        # Not view(...): what others have put around the forward of this very model must not run twice.
        return type(model).forward(view, use_cache=False).logits[0]

    return head


class _Answer(nn.Module):
    """A module that has its answer already."""

    def __init__(self, answer: ModelOutput) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_args: Any, **_kwargs: Any) -> ModelOutput:
        return self.answer


def _view(module: nn.Module, path: list[str], replacement: nn.Module) -> nn.Module:
    """Return a shallow copy of a module in which the module at `path` is another."""
    if not path:
        return replacement
    view = copy.copy(module)
    view._modules = dict(module._modules)
    view._modules[path[0]] = _view(cast(nn.Module, module._modules[path[0]]), path[1:], replacement)
    return view


def layer_output(output: Tensor | tuple[Any, ...]) -> Tensor:
    """Return the output states (batch, seq, dim) of what a decoder layer returned."""
    return output if isinstance(output, Tensor) else output[0]


def with_layer_output(output: Tensor | tuple[Any, ...], states: Tensor) -> Tensor | tuple[Any, ...]:
    """Return what a decoder layer returned, with its output states replaced."""
    return states if isinstance(output, Tensor) else (states, *output[1:])


def accepts(module: nn.Module, argument: str) -> bool:
    """Tell whether a module's forward names an argument (BLOOM takes no `position_ids`)."""
    return argument in _arguments(type(module).forward)


@cache
def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def position_ids_from(
    attention_mask: Tensor | None, batch_size: int, past: int, length: int, device: torch.device
) -> Tensor:
    """Return the positions (batch, length) of the newest tokens, counting real tokens only.

    Args:
        attention_mask: (batch, past + length), True or 1 = a real token; None = no padding.
    """
    if attention_mask is None:
        return torch.arange(past, past + length, device=device).expand(batch_size, length)
    positions = attention_mask.long().cumsum(-1) - 1
    return positions.clamp(min=0)[:, -length:]
