"""LoRA (Hu et al. 2021), by peft: low-rank updates of every matrix in the attention and feed-forward blocks."""

import copy
import re
from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from calmctl.baselines.places import blocks_of, names_of_modules

# alpha / rank, for every rank: that of LLM-Adapters (rank 32, alpha 64).
SCALING = 2


def units(anchor: PreTrainedModel, where: str) -> dict[str, int]:
    """Return the parameters that one more rank adds to each matrix. Experts in one fused tensor are left out."""
    names, found = names_of_modules(anchor), {}
    for block in blocks_of(anchor, where).values():
        for part in dict.fromkeys([block.entry, block.exit]):
            for module in part.modules():
                if isinstance(module, nn.Linear | Conv1D):
                    found[names[module]] = sum(module.weight.shape)
    return found


def attach(anchor: PreTrainedModel, sizes: Mapping[str, int]) -> nn.ModuleDict:
    """Put low-rank updates into matrices; peft keeps them beside the weights, inside of the anchor."""
    from peft import LoraConfig, inject_adapter_in_model

    patterns = {f"{re.escape(name)}": rank for name, rank in sizes.items()}
    config = LoraConfig(
        r=max(sizes.values()),
        target_modules=list(sizes),
        rank_pattern=patterns,
        alpha_pattern={name: SCALING * rank for name, rank in patterns.items()},
        fan_in_fan_out=any(isinstance(anchor.get_submodule(name), Conv1D) for name in sizes),
    )
    inject_adapter_in_model(config, anchor)
    # peft gives updates the type of the weights beside them; in bfloat16 small steps of training round to nothing.
    for name, parameter in anchor.named_parameters():
        if own_name(name) is None:
            parameter.data = parameter.data.float()
    return nn.ModuleDict()


def own_name(name: str) -> str | None:
    """Return what the anchor itself calls a weight; None = it belongs to an update."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


def merged(anchor: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of an anchor with the updates added to its weights, which makes it a plain model."""
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(anchor)
    for name, module in list(plain.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            plain.set_submodule(name, module.get_base_layer())
    vars(plain).pop("peft_config", None)
    return plain.requires_grad_(True)
