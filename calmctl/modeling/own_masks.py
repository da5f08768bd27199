"""Attention masks that say token by token what to attend to, and which decoders take them.

Like layers.py, this file judges architectures by structure and configuration. Decoders of transformers use a mask of
four dimensions as it is instead of building their own; decoders with several attention types take one mask per type.
What a decoder computes from a token's index in the row, rather than from its position or the mask, cannot be controlled
this way: see `why_no_own_masks`.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from calmctl.modeling import layers
from calmctl.modeling.calling import accepts, argument_names

# Attention implementations that take such masks.
WITH_MASKS = ("eager", "sdpa")
# Attention type, as configurations name it -> name of the setting with its reach in tokens.
REACHES = {"full_attention": "", "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
# Name of a submodule of attention that selects keys: it has its own cache, or takes the keys in blocks.
SELECTING = "indexer"


# Model -> attention implementation -> answer; cached, as every forward pass asks and scanning modules is slow.
_known: WeakKeyDictionary[nn.Module, dict[str | None, str]] = WeakKeyDictionary()


@torch.compiler.disable
def why_no_own_masks(model: PreTrainedModel) -> str:
    """Say why a decoder takes no masks token by token; an empty string if it does.

    Structure and configuration decide, so models without weights will do.

    Raises:
        UserError: its decoder layers are not found.
    """
    known, implementation = _known.setdefault(model, {}), layers.text_config(model.config)._attn_implementation
    if implementation not in known:
        known[implementation] = _why_no_own_masks(model)
    return known[implementation]


def _why_no_own_masks(model: PreTrainedModel) -> str:
    config, decoder = layers.text_config(model.config), layers.decoder(model)
    modules = _modules(model)
    if getattr(config, "alibi", False) or not accepts(decoder, "position_ids"):
        return "it finds positions by itself (its forward takes no position_ids, or its attention has ALiBi)"
    if any(getattr(module, "attn_temperature_tuning", False) and not module.use_rope for module in modules):
        return "it scales attention by a token's place in the row (attn_temperature_tuning)"
    if _has_causal_table(modules):
        return "its attention has a mask of its own, by a token's place in the row"
    if any(isinstance(getattr(module, SELECTING, None), nn.Module) for module in modules):
        return f"it selects the keys that it attends to ({SELECTING})"
    if unknown := [way for way in _ways(config) if not _is_known(config, way)]:
        return f"it attends in a way that no mask is known for ({', '.join(unknown)})"
    implementation = config._attn_implementation
    if implementation not in WITH_MASKS:
        return f"attn_implementation={implementation} takes no such masks; load it with {' or '.join(WITH_MASKS)}"
    return ""


def why_no_gaps(model: PreTrainedModel) -> str:
    """Say why rows of a batch cannot have gaps between their tokens; an empty string if they can.

    Rows get gaps where other rows have more tokens in the same step. A decoder without `position_ids` has to count
    positions by the mask, as ALiBi attention does in BLOOM, not by the index in the row, as in MPT.
    """
    decoder = layers.decoder(model)
    if _has_causal_table(_modules(model)):
        return "it attends by a token's place in the row, gaps included"  # GPT Neo's local layers
    if accepts(decoder, "position_ids"):
        return ""
    biases = (getattr(type(decoder), name) for name in dir(type(decoder)) if "alibi" in name)
    counts_by_mask = any("attention_mask" in argument_names(bias) for bias in biases if callable(bias))
    return "" if counts_by_mask else "it counts a token's place in the row, gaps included"


def own_mask(
    decoder: PreTrainedModel, allowed: Tensor, positions: Tensor, key_positions: Tensor
) -> Tensor | dict[str, Tensor]:
    """Return the `attention_mask` to give a decoder together with `position_ids`.

    Layers of limited reach (a sliding window, chunks) go by positions, so their caches must keep tokens beyond the
    reach too. Every token, padding included, must be allowed to attend to itself.

    Args:
        allowed: (batch, new, total), True = the new token may attend to the key, which is not after it.
        positions: (batch, new), position of each new token in its text.
        key_positions: (batch, total), position of each key in its text.
    """
    config = layers.text_config(decoder.config)
    queries, keys = positions[:, :, None], key_positions[:, None, :]
    masks = {}
    for way in _ways(config):
        reach, within = _reach(config, way), allowed
        if way == "sliding_attention":
            within = allowed & (queries - keys < reach)
        elif way == "chunked_attention":
            within = allowed & (queries // reach == keys // reach)
        # As in transformers: sdpa takes booleans, whatever its dtype; eager attention adds the mask to the scores.
        masks[way] = (within if config._attn_implementation == "sdpa" else _additive(within, decoder.dtype))[:, None]
    return masks if len(masks) > 1 else next(iter(masks.values()))


def shortest_reach(model: PreTrainedModel) -> int | None:
    """Return the shortest reach, in tokens, of a decoder's layers; None = all layers reach every token."""
    config = layers.text_config(model.config)
    return min((reach for way in _ways(config) if (reach := _reach(config, way))), default=None)


def _ways(config: PreTrainedConfig) -> list[str]:
    """Return the attention types of a decoder's layers, each once."""
    if (named := getattr(config, "layer_types", None)) is not None:
        return sorted(set(named))
    # All layers share one type, shown by a setting that this class of configuration takes; others are ignored.
    known = argument_names(type(config).__init__)
    return [way for way, name in REACHES.items() if name in known and _reach(config, way)][:1] or ["full_attention"]


def _reach(config: PreTrainedConfig, way: str) -> int:
    """Return the reach of an attention type in tokens; 0 = unlimited."""
    return getattr(config, REACHES.get(way) or "no limit", None) or 0


def _is_known(config: PreTrainedConfig, way: str) -> bool:
    """Tell whether an attention type is supported and has the same reach in all layers."""
    if way not in REACHES or not REACHES[way]:
        return way in REACHES
    reach = _reach(config, way)
    return reach > 0 and all(_reach(each, way) == reach for each in getattr(config, "per_layer_config", ()))


def _additive(within: Tensor, dtype: torch.dtype) -> Tensor:
    zeros = torch.zeros(within.shape, dtype=dtype, device=within.device)
    return zeros.masked_fill(~within, torch.finfo(dtype).min)


def _modules(model: PreTrainedModel) -> list[nn.Module]:
    return [module for layer in layers.decoder_layers(model) for module in layer.modules()]


def _has_causal_table(modules: Sequence[nn.Module]) -> bool:
    """Tell whether attention has a buffer that holds a causal mask by the index in the row."""
    buffers = [buffer for module in modules for buffer in module._buffers.values() if buffer is not None]
    return any(each.dtype == torch.bool and each.ndim > 1 and each.shape[-1] == each.shape[-2] for each in buffers)
