"""Prefix tuning (Li and Liang 2021): trained keys and values that every token of every attention sees.

The parameters are peft's `PrefixEncoder`, one per layer. How they reach the attention is ours: peft puts them into the
cache of a forward pass, which it makes anew, so caches that are handed in (decoding goes on from one, prompts share
one) are lost, sliding windows forget the prefix, and every token moves up by its length. Here the attention function
itself puts them before keys and values: caches, masks and positions stay what they are without a prefix.
"""

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from calmctl.baselines.bottleneck import as_modules
from calmctl.baselines.places import blocks_of
from calmctl.errors import UserError
from calmctl.modeling.layers import device_of, hidden_size, num_heads, text_config

# Implementations of attention that a prefix can be put before, by what the one with a prefix is called.
IMPLEMENTATIONS = {"calmctl_prefix_eager": "eager", "calmctl_prefix_sdpa": "sdpa"}
# Where an attention module keeps its prefix; not as a submodule, for the adapted model owns it.
SLOT = "calmctl_prefix"
# Attention scores of n virtual tokens begin lower by log(n) and this much, so that all together weigh as much as a
# third of a token with score 0. Their number follows from the parameters to match: without the offset hundreds of them
# drown the few tokens of a short prompt, and training does not find back to the anchor's ability (docs/baselines.md).
RESERVE = 1.0
# Keys and values begin small, for the same reason; peft's begin at 1.
INITIAL_STD = 0.02


class Prefix(nn.Module):
    """Keys and values of some virtual tokens for one attention module."""

    def __init__(self, length: int, num_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        from peft import PrefixEncoder, PrefixTuningConfig

        config = PrefixTuningConfig(
            num_virtual_tokens=length,
            token_dim=num_kv_heads * head_dim,
            num_layers=1,
            num_attention_heads=num_kv_heads,
            num_transformer_submodules=1,
            encoder_hidden_size=num_kv_heads * head_dim,
        )
        self.encoder = PrefixEncoder(config)
        nn.init.normal_(self.encoder.embedding.weight, std=INITIAL_STD)
        self.length, self.num_kv_heads, self.head_dim = length, num_kv_heads, head_dim

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return keys and values (kv_heads, length, head_dim)."""
        whole = self.encoder(torch.arange(self.length, device=self.encoder.embedding.weight.device))
        keys, values = whole.view(self.length, 2, self.num_kv_heads, self.head_dim).permute(1, 2, 0, 3)
        return keys, values


def units(anchor: PreTrainedModel, where: str) -> dict[str, int]:
    """Return the parameters that one more virtual token adds to each attention.

    Raises:
        UserError: the model computes its attention in a way of its own.
    """
    if where != "attention":
        raise UserError(f"where={where!r}: prefix tuning acts on attention only; leave it out")
    _implementation(anchor)
    return {
        name: 2 * _num_kv_heads(anchor) * _head_dim(anchor, block.entry)
        for name, block in blocks_of(anchor, where).items()
    }


def attach(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> nn.ModuleDict:
    """Put a prefix before the keys and values of some attention modules, and return the prefixes."""
    blocks, prefixes = blocks_of(anchor, "attention"), {}
    wanted = _implementation(anchor)
    for name, length in sizes.items():
        attention = blocks[name].entry
        prefix = Prefix(length, _num_kv_heads(anchor), _head_dim(anchor, attention)).to(device_of(attention))
        prefixes[name] = vars(attention)[SLOT] = prefix
    anchor.set_attn_implementation(wanted)
    return as_modules(prefixes)


def _implementation(anchor: PreTrainedModel) -> str:
    """Return the attention implementation that puts a prefix before the anchor's own.

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


def _num_kv_heads(anchor: PreTrainedModel) -> int:
    return getattr(text_config(anchor.config), "num_key_value_heads", None) or num_heads(anchor.config)


def _head_dim(anchor: PreTrainedModel, attention: nn.Module) -> int:
    own = getattr(attention, "head_dim", None) or getattr(attention, "head_size", None)
    return own or hidden_size(anchor.config) // num_heads(anchor.config)


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
        # Left out where the function would find it by itself, which a prefix makes impossible: a single token sees
        # all; others are the first ones, beside those of the same place (a static cache has room for more after them).
        visible = torch.ones(length, known, dtype=torch.bool, device=query.device)
        attention_mask = (visible if length == 1 else visible.tril())[None, None]
    if attention_mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        attention_mask = query.new_zeros(attention_mask.shape).masked_fill(~attention_mask, lowest)
    offset = -math.log(prefix.length) - RESERVE
    attention_mask = F.pad(attention_mask[..., :known], (prefix.length, 0), value=offset)
    return attend(module, query, torch.cat([keys, key], -2), torch.cat([values, value], -2), attention_mask, **settings)


def _attention_function(own: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the function behind an implementation; the eager one lies beside the class of the attention."""
    if own == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward
    return AttentionInterface._global_mapping[own]


for _name, _own in IMPLEMENTATIONS.items():
    AttentionInterface.register(_name, partial(_with_prefix, _own))
    AttentionMaskInterface.register(_name, cast(Any, AttentionMaskInterface._global_mapping[_own]))
