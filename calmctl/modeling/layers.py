"""Where the decoder layers of a Hugging Face causal language model are: the only file that knows architectures.

Nothing here is a list of families. Every decoder-only model of transformers keeps its blocks in one
`nn.ModuleList` of `num_hidden_layers` entries below `get_decoder()`, and every block returns its output states
either as a tensor or as the first entry of a tuple.
"""

import copy
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

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
    decoder, name = model.get_decoder(), _layers_name(model)
    view = copy.copy(decoder)
    view._modules = dict(decoder._modules)
    view._modules[name] = nn.ModuleList(decoder_layers(model)[:count])
    return view


def device_of(layer: nn.Module) -> torch.device:
    """Return where a layer computes, also when its weights are kept elsewhere until then (offloading)."""
    hook = getattr(layer, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return torch.device(device) if device is not None else next(layer.parameters()).device


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
