"""LoRA (Hu et al. 2021), by peft: low-rank updates of every matrix in the attention and feed-forward blocks."""

import copy
import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from calmctl.baselines.places import blocks_of, names_of_modules
from calmctl.errors import UserError

# alpha / rank, for every rank, as in LLM-Adapters (rank 32, alpha 64).
SCALING = 2
HOLDER = "anchor"


def units(anchor: PreTrainedModel, where: str) -> dict[str, int]:
    """Return the parameters per rank of each matrix's update.

    Experts in one fused tensor are left out, and so are modules that return more than a product (routers).

    Raises:
        UserError: no matrix is left.
    """
    names, found = names_of_modules(anchor), {}
    for block in blocks_of(anchor, where).values():
        for part in dict.fromkeys([block.entry, block.exit]):
            for module in part.modules():
                if isinstance(module, nn.Linear | Conv1D) and _is_plain(module):
                    found[names[module]] = sum(module.weight.shape)
    if not found:
        raise UserError(f"{type(anchor).__name__}: no matrix of its {where} blocks can take a low-rank update")
    return found


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a linear module returns only its product; routers of some models return scores too."""
    is_own = type(module).__module__.startswith(("transformers.models.", "transformers_modules."))
    if not is_own or type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    weight = cast(Tensor, module.weight)
    with torch.no_grad():
        return isinstance(module(weight.new_zeros(1, weight.shape[1])), Tensor)


def attach(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> nn.ModuleDict:
    """Add low-rank updates to matrices; peft keeps them beside the weights, inside the anchor."""
    from peft import LoraConfig, inject_adapter_in_model

    # Wrapped in a plain module: in a transformers model peft would take the names for those of older versions, in which
    # every expert had its own matrices, and adapt all experts of a layer where a dense or shared one is named.
    holder = nn.ModuleDict({HOLDER: anchor})
    patterns = {re.escape(f"{HOLDER}.{name}"): rank for name, rank in sizes.items()}
    config = LoraConfig(
        r=max(sizes.values()),
        target_modules=[f"{HOLDER}.{name}" for name in sizes],
        rank_pattern=patterns,
        alpha_pattern={name: SCALING * rank for name, rank in patterns.items()},
        fan_in_fan_out=any(isinstance(anchor.get_submodule(name), Conv1D) for name in sizes),
    )
    inject_adapter_in_model(config, holder)
    # peft gives updates the dtype of the weights; in bfloat16 small training steps would round to nothing.
    for name, parameter in anchor.named_parameters():
        if own_name(name) is None:
            parameter.data = parameter.data.float()
    return nn.ModuleDict()


def own_name(name: str) -> str | None:
    """Return the anchor's own name of a weight; None if it belongs to an update."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


def merged(anchor: PreTrainedModel) -> PreTrainedModel:
    """Return a plain copy of an anchor, with the updates added to its weights."""
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(anchor)
    for name, module in list(plain.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            plain.set_submodule(name, module.get_base_layer())
    vars(plain).pop("peft_config", None)
    return plain.requires_grad_(True)
