"""Prefix tuning (Li and Liang 2021): trained keys and values that every token attends to, in every layer.

The parameters are those of peft's `PrefixEncoder`, one per layer; keys and values may differ in width (latent
attention). peft puts them into a new cache for each forward pass, so a given cache (of earlier tokens or of a shared
prompt) is lost, sliding windows forget the prefix, and every position moves up by its length. Here the attention
function itself prepends them to keys and values: caches, masks and positions stay as they are without a prefix.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from calmctl.baselines.options import AdapterOptions
from calmctl.baselines.places import as_modules, blocks_of
from calmctl.errors import UserError
from calmctl.modeling.layers import device_of, hidden_size, num_heads, text_config

# Name of an attention implementation with a prefix -> the implementation that it wraps.
IMPLEMENTATIONS = {"calmctl_prefix_eager": "eager", "calmctl_prefix_sdpa": "sdpa"}
# The attribute of an attention module that holds its prefix; not a submodule, as the adapted model owns it.
SLOT = "calmctl_prefix"
# The scores of n virtual tokens start lower by log(n) + RESERVE, so that together they weigh as much as a third of a
# token with score 0. n follows from the parameters to match: without the offset, hundreds of virtual tokens drown a
# short prompt, and training does not recover the anchor's ability (docs/baselines.md).
RESERVE = 1.0
# Keys and values start small, for the same reason; peft's start with a standard deviation of 1, and without offset.
INITIAL_STD = 0.02
PUBLISHED_STD = 1.0


@dataclass(frozen=True)
class Heads:
    """The shape of an attention's keys and values: number of heads, width of a key and of a value."""

    number: int
    key_dim: int
    value_dim: int

    @property
    def size(self) -> int:
        """Return the total width of a token's keys and values."""
        return self.number * (self.key_dim + self.value_dim)


class Prefix(nn.Module):
    """Keys and values of some virtual tokens for one attention module."""

    def __init__(self, length: int, heads: Heads, is_published: bool) -> None:
        super().__init__()
        embedding = nn.Embedding(length, heads.size)
        nn.init.normal_(embedding.weight, std=PUBLISHED_STD if is_published else INITIAL_STD)
        self.encoder = nn.ModuleDict({"embedding": embedding})  # names that checkpoints hold
        self.length, self.heads = length, heads
        self.offset = 0.0 if is_published else -math.log(length) - RESERVE

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return keys and values (kv_heads, length, head_dim)."""
        whole, heads = self.get_parameter("encoder.embedding.weight"), self.heads
        keys, values = whole.split([heads.number * heads.key_dim, heads.number * heads.value_dim], dim=-1)
        return (
            keys.view(self.length, heads.number, heads.key_dim).transpose(0, 1),
            values.view(self.length, heads.number, heads.value_dim).transpose(0, 1),
        )


def units(anchor: PreTrainedModel, options: AdapterOptions) -> dict[str, int]:
    """Return the parameters per virtual token of each attention's prefix.

    Raises:
        UserError: the model's attention cannot take a prefix.
    """
    _implementation(anchor)
    return {name: _heads(anchor, block.entry).size for name, block in blocks_of(anchor, options.where).items()}


def attach(anchor: PreTrainedModel, sizes: Mapping[str, int], options: AdapterOptions) -> nn.ModuleDict:
    """Prepend a prefix to the keys and values of some attention modules, and return the prefixes."""
    blocks, prefixes = blocks_of(anchor, "attention"), {}
    wanted = _implementation(anchor)
    for name, length in sizes.items():
        attention = blocks[name].entry
        prefix = Prefix(length, _heads(anchor, attention), options.init == "published").to(device_of(attention))
        prefixes[name] = vars(attention)[SLOT] = prefix
    anchor.set_attn_implementation(wanted)
    return as_modules(prefixes)


def _implementation(anchor: PreTrainedModel) -> str:
    """Return the name of the attention implementation that adds a prefix to the anchor's own.

    Raises:
        UserError: there is none.
    """
    if not anchor._can_set_attn_implementation():
        raise UserError(
            f"{type(anchor).__name__} computes attention in a way of its own, which prefix tuning cannot reach; "
            "use lora, series or parallel"
        )
    current = text_config(anchor.config)._attn_implementation
    for name, own in IMPLEMENTATIONS.items():
        if current in (own, name):
            return name
    raise UserError(f"prefix tuning works with attention=sdpa and attention=eager, not {current}")


def _heads(anchor: PreTrainedModel, attention: nn.Module) -> Heads:
    """Return the shape of the keys and values that an attention module computes, read from its attributes.

    `building.adapt` checks it by running the model.
    """
    config = text_config(anchor.config)
    if hasattr(attention, "kv_lora_rank"):
        # Latent attention unpacks a key and a value for each query head.
        widths: Any = attention
        key_dim = getattr(widths, "qk_head_dim", None) or widths.qk_nope_head_dim + widths.qk_rope_head_dim
        return Heads(num_heads(anchor.config), key_dim, widths.v_head_dim)
    dim = _first_number(attention, "head_dim", "head_size") or hidden_size(anchor.config) // num_heads(anchor.config)
    grouped = _first_number(attention, "num_key_value_heads", "num_kv_heads", "kv_heads")
    if grouped is None and isinstance(projection := getattr(attention, "k_proj", None), nn.Linear):
        grouped = projection.out_features // dim
    return Heads(grouped or _first_number(config, "num_key_value_heads") or num_heads(anchor.config), dim, dim)


def _first_number(owner: object, *names: str) -> int | None:
    found = (getattr(owner, name, None) for name in names)
    return next((value for value in found if isinstance(value, int) and value), None)


def _with_prefix(
    own: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute attention over a prefix and the tokens (an attention function of transformers).

    Args:
        attention_mask: (batch, 1, seq, kv_seq), True or 0 = may be attended; None = causal.
    """
    attend = _attention_function(own, module)
    prefix = vars(module).get(SLOT)
    if prefix is None:
        return attend(module, query, key, value, attention_mask, **settings)
    batch_size, length, known = query.shape[0], query.shape[-2], key.shape[-2]
    keys, values = (held.to(key.dtype).expand(batch_size, -1, -1, -1) for held in prefix())
    if attention_mask is None:
        # The function would infer a causal mask, which a prefix makes impossible. Without a mask, a single query sees
        # all keys; several queries are the first tokens (a static cache has free places after them).
        visible = torch.ones(length, known, dtype=torch.bool, device=query.device)
        attention_mask = (visible if length == 1 else visible.tril())[None, None]
    if attention_mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        attention_mask = query.new_zeros(attention_mask.shape).masked_fill(~attention_mask, lowest)
    attention_mask = F.pad(attention_mask[..., :known], (prefix.length, 0), value=prefix.offset)
    return attend(module, query, torch.cat([keys, key], -2), torch.cat([values, value], -2), attention_mask, **settings)


def _attention_function(own: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the function of an implementation; the eager one is defined in the module of the attention's class."""
    if own == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward
    return AttentionInterface._global_mapping[own]


for _name, _own in IMPLEMENTATIONS.items():
    AttentionInterface.register(_name, partial(_with_prefix, _own))
    AttentionMaskInterface.register(_name, cast(Any, AttentionMaskInterface._global_mapping[_own]))
