"""Where adapters go: blocks of every decoder layer, or single linear layers in them, by module name."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from calmctl.baselines.options import ADAPTER_H, ADAPTER_P, ATTENTION, FEED_FORWARD, PUBLISHED
from calmctl.errors import UserError
from calmctl.modeling.blocks import Block, attention_of, feed_forward_of
from calmctl.modeling.layers import decoder_layers, text_config

_UP_AND_DOWN: dict[str, tuple[str, ...]] = {
    "llama": ("up_proj", "down_proj"),
    "gptj": ("fc_in", "fc_out"),
    "bloom": ("dense_h_to_4h", "dense_4h_to_h"),
}
_QUERIES_TO_VALUES = ("q_proj", "k_proj", "v_proj")
# Method -> model type -> matrices that LLM-Adapters' published commands name. For series adapters they are those of
# its tables on arithmetic, which sit before the MLP although the paper says "after"; only LLaMA's are published.
PUBLISHED_TARGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "lora": {
        "llama": (*_QUERIES_TO_VALUES, *_UP_AND_DOWN["llama"]),
        "gptj": (*_QUERIES_TO_VALUES, *_UP_AND_DOWN["gptj"]),
        "bloom": ("query_key_value", *_UP_AND_DOWN["bloom"]),
    },
    "parallel": _UP_AND_DOWN,
    "series": {"llama": ("up_proj", "gate_proj")},
    ADAPTER_H: {**_UP_AND_DOWN, "llama": ("gate_proj", *_UP_AND_DOWN["llama"])},
    ADAPTER_P: {family: names[1:] for family, names in _UP_AND_DOWN.items()},
}


def blocks_of(anchor: PreTrainedModel, where: str = "both") -> dict[str, Block]:
    """Return the blocks of a model in order, by the name of the module that returns the block's output.

    Args:
        where: "attention", "feed_forward" or "both".

    Raises:
        UserError: the blocks are not found.
    """
    names, found = names_of_modules(anchor), {}
    for layer in decoder_layers(anchor):
        if where != FEED_FORWARD:
            attention = attention_of(layer)
            found[names[attention]] = Block(attention, attention)
        if where != ATTENTION:
            block = feed_forward_of(layer)
            found[names[block.exit]] = block
    return found


def matrices_of(anchor: PreTrainedModel, where: str = "both") -> dict[str, nn.Linear | Conv1D]:
    """Return the linear layers in the blocks of a model, by name.

    Experts in one fused tensor are left out, and so are modules that return more than a product (routers).
    """
    names, found = names_of_modules(anchor), {}
    for block in blocks_of(anchor, where).values():
        for part in dict.fromkeys([block.entry, block.exit]):
            for module in part.modules():
                if isinstance(module, nn.Linear | Conv1D) and _is_plain(module):
                    found[names[module]] = module
    return found


def targeted(anchor: PreTrainedModel, method: str, targets: tuple[str, ...]) -> dict[str, nn.Linear | Conv1D]:
    """Return the linear layers that `targets` names, by name.

    Raises:
        UserError: a target names no linear layer of the blocks, or nothing was published for the method and family.
    """
    if targets in ((PUBLISHED,), (ADAPTER_H,), (ADAPTER_P,)):
        family, kind = text_config(anchor.config).model_type, method if PUBLISHED in targets else targets[0]
        published = PUBLISHED_TARGETS[kind]
        if family not in published:
            known = ", ".join(published)
            raise UserError(f"targets={targets[0]}: LLM-Adapters trained {kind} on {known}, not on {family}; name them")
        targets = published[family]
    found = matrices_of(anchor)
    for target in targets:
        if not any(_is_named(name, target) for name in found):
            there = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in found)) or "none"
            raise UserError(
                f"targets: {type(anchor).__name__} has no linear layer {target} in its blocks; it has {there}"
            )
    return {name: module for name, module in found.items() if any(_is_named(name, target) for target in targets)}


def widths_of(linear: nn.Linear | Conv1D) -> tuple[int, int]:
    """Return how many features a linear layer takes and gives."""
    taken, given = linear.weight.shape if isinstance(linear, Conv1D) else reversed(linear.weight.shape)
    return taken, given


def names_of_modules(model: PreTrainedModel) -> dict[object, str]:
    """Return the name of every module."""
    return {module: name for name, module in model.named_modules()}


def as_modules(adapters: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return adapters as one module, under names without dots, which torch forbids."""
    return nn.ModuleDict({name.replace(".", "_"): adapter for name, adapter in adapters.items()})


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a linear module returns only its product; routers of some models return scores too."""
    is_own = type(module).__module__.startswith(("transformers.models.", "transformers_modules."))
    if not is_own or type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    weight = cast(Tensor, module.weight)
    with torch.no_grad():
        return isinstance(module(weight.new_zeros(1, weight.shape[1])), Tensor)
