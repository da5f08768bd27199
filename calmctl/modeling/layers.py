"""Find the decoder layers of a Hugging Face causal language model, and refuse models that cannot be bases.

There is no list of model families. Every decoder-only model of transformers keeps its layers in one `nn.ModuleList` of
`num_hidden_layers` entries directly below its decoder, and every layer returns its output states either as a tensor or
as the first entry of a tuple. What rules a model out (attention to later tokens or to an encoder, a recurrent state
instead of keys and values) shows in its structure too; see `check_base`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache

from calmctl.errors import UserError
from calmctl.modeling.calling import CACHE_NAMES, accepts, cache_argument
from calmctl.modeling.configuration import declared_context

# Names of cross-attention to an encoder in decoder layers.
CROSS_ATTENTION = ("encoder_attn", "cross_attn", "crossattention")
# Settings by which a configuration asks for outputs besides the states.
BESIDE = ("output_hidden_states", "output_attentions", "output_router_logits")


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the part of a configuration that describes the text decoder."""
    return config.get_text_config(decoder=True)


def num_layers(config: PreTrainedConfig) -> int:
    """Return the number of decoder layers that a configuration describes."""
    return _setting(config, "num_hidden_layers")


def hidden_size(config: PreTrainedConfig) -> int:
    """Return the width of the residual stream."""
    return _setting(config, "hidden_size")


def num_heads(config: PreTrainedConfig) -> int:
    """Return the number of attention (query) heads."""
    return _setting(config, "num_attention_heads")


def _setting(config: PreTrainedConfig, name: str) -> int:
    value = getattr(text_config(config), name, None)
    if not isinstance(value, int):
        raise UserError(f"{type(config).__name__} does not say its {name}; this architecture cannot be composed")
    return value


def check_base(model: PreTrainedModel, role: str) -> None:
    """Refuse a model that is no decoder-only causal LM with a KV cache.

    Args:
        role: "anchor" or "aug", for the error.

    Raises:
        UserError: one line that names the class and the obstacle.
    """
    if reason := _obstacle(model):
        raise UserError(f"the {role}, a {type(model).__name__}, cannot be composed: {reason}")


def _obstacle(model: PreTrainedModel) -> str:
    """Return why a model cannot be a base, or an empty string.

    Raises:
        UserError: its decoder layers are not found.
    """
    config = text_config(model.config)
    if model.config.is_encoder_decoder:
        return "it is an encoder-decoder, and only decoder-only models can be"
    if model.get_output_embeddings() is None:
        return "it has no LM head; load it with AutoModelForCausalLM"
    attentions = dict(model.get_decoder().named_modules())
    if crossing := next((name for name in attentions if name.rpartition(".")[2] in CROSS_ATTENTION), ""):
        return f"it is half of an encoder-decoder (its layers attend to an encoder: {crossing})"
    if reason := reads_ahead(model):
        return reason
    decoder_layers(model)
    if _is_recurrent(model, config):
        return "it keeps a recurrent state, which unlike keys and values can neither skip padding nor be cropped"
    if not accepts(model, "attention_mask"):
        return "its forward does not take attention_mask"
    if cache_argument(model) is None:
        return f"its forward takes no cache ({' or '.join(CACHE_NAMES)})"
    return ""


def reads_ahead(model: PreTrainedModel) -> str:
    """Say why a model is no causal language model (it attends to later tokens); an empty string for a causal one."""
    config, modules = text_config(model.config), model.get_decoder().modules()
    # "vision": only image tokens attend to each other; text, the only input here, stays causal.
    both_ways = getattr(config, "use_bidirectional_attention", None) not in (None, False, "vision")
    if not both_ways and all(getattr(module, "is_causal", None) is not False for module in modules):
        return ""
    hint = " (is_decoder=False)" if getattr(config, "is_decoder", None) is False else ""
    return f"it attends to later tokens{hint}, so it is no causal language model"


def _is_recurrent(model: PreTrainedModel, config: PreTrainedConfig) -> bool:
    states = ("update_conv_state", "update_recurrent_state")
    return model._is_stateful or any(
        hasattr(layer, state) for layer in DynamicCache(config=config).layers for state in states
    )


def decoder(model: PreTrainedModel) -> PreTrainedModel:
    """Return the module that embeds tokens and runs the decoder layers, without the LM head.

    Raises:
        UserError: no module has a single ModuleList of `num_hidden_layers` entries.
    """
    return find_layers(model)[0]


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers of a model, in order.

    Raises:
        UserError: no module has a single ModuleList of `num_hidden_layers` entries.
    """
    parent, name = find_layers(model)
    return getattr(parent, name)


def find_layers(model: PreTrainedModel) -> tuple[PreTrainedModel, str]:
    """Return a model's decoder and the name of its layers there.

    Raises:
        UserError: no module has a single ModuleList of `num_hidden_layers` entries.
    """
    expected = num_layers(model.config)
    # `get_decoder` is a best effort: of some models it is the LM head (called `decoder`), of others the whole model.
    candidates = (model.get_decoder(), model.base_model, getattr(model, "model", None))
    for candidate in candidates:
        children = candidate.named_children() if isinstance(candidate, nn.Module) else ()
        names = [name for name, child in children if isinstance(child, nn.ModuleList) and len(child) == expected]
        if candidate is not None and len(names) == 1:
            return cast(PreTrainedModel, candidate), names[0]
    raise UserError(
        f"{type(model).__name__}: found no single ModuleList of {expected} decoder layers directly below "
        f"{type(candidates[0]).__name__}; this architecture cannot be composed"
    )


def device_of(layer: nn.Module) -> torch.device:
    """Return the device that a layer computes on, even if its weights are offloaded."""
    hook = getattr(layer, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return torch.device(device) if device is not None else next(layer.parameters()).device


def keep_in_eval_mode(modules: Sequence[nn.Module]) -> None:
    """Put frozen modules back into eval mode (no dropout), wherever somebody has called `train`."""
    for module in modules:
        if module.training:
            module.training = False


def layer_output(output: Tensor | tuple[Any, ...]) -> Tensor:
    """Return the output states (batch, seq, dim) in the output of a decoder layer.

    Raises:
        UserError: the layer keeps several residual streams (hyper-connections), which only running it shows.
    """
    states = output if isinstance(output, Tensor) else output[0]
    if states.ndim != 3:
        raise UserError(
            f"a decoder layer returned states of shape {tuple(states.shape)}, not (batch, seq, dim): models with "
            "several residual streams cannot be composed"
        )
    return states


def with_layer_output(output: Tensor | tuple[Any, ...], states: Tensor) -> Tensor | tuple[Any, ...]:
    """Return the output of a decoder layer with its output states replaced."""
    return states if isinstance(output, Tensor) else (states, *output[1:])


def arguments_of(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | Mapping[str, Tensor] | None,
    position_ids: Tensor,
    cache: Cache | None = None,
    wanted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build forward() arguments; leave out `position_ids` if the model takes none and counts them by the mask.

    Args:
        attention_mask: (batch, past + seq), or the result of `own_mask`.
        wanted: outputs to ask for besides the states, `output_attentions=True` for example.
    """
    device = device_of(model.get_input_embeddings())
    arguments: dict[str, Any] = {"input_ids": input_ids.to(device), "use_cache": cache is not None}
    if isinstance(attention_mask, Mapping):
        arguments["attention_mask"] = {kind: mask.to(device) for kind, mask in attention_mask.items()}
    else:
        arguments["attention_mask"] = attention_mask.to(device) if attention_mask is not None else None
    if accepts(model, "position_ids"):
        arguments["position_ids"] = position_ids.to(device)
    if cache is not None:
        arguments[cast(str, cache_argument(model))] = cache
    asked = {name: value for name, value in (wanted or {}).items() if value is not None and value is not False}
    return arguments | as_asked(model) | asked


def as_asked(model: PreTrainedModel) -> dict[str, Any]:
    """Return arguments that override a configuration's requests for extra outputs or for tuples."""
    config = model.config
    against = {name: False for name in BESIDE if getattr(config, name, False)}
    return against if getattr(config, "return_dict", True) else {**against, "return_dict": True}


def has_positions_table(model: PreTrainedModel) -> bool:
    """Tell whether a model looks positions up in a table as long as its context instead of computing them."""
    length = declared_context(model.config)
    whole, name = find_layers(model)
    embedding = model.get_input_embeddings()
    parts = [child for each, child in whole.named_children() if each != name and child is not embedding]
    return length is not None and any(
        _is_table(part, length) for part in (whole, *parts, *getattr(whole, name)[0].modules())
    )


def _is_table(module: nn.Module, length: int) -> bool:
    if isinstance(module, nn.Embedding):
        return 0 <= module.num_embeddings - length <= 2  # some keep a row or two at the start for no position
    return any(buffer is not None and buffer.ndim == 2 and len(buffer) == length for buffer in module._buffers.values())


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
