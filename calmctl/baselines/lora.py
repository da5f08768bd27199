"""LoRA (Hu et al. 2021), by peft: low-rank updates of matrices in the attention and feed-forward blocks."""

import copy
import re
from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from calmctl.baselines.options import AdapterOptions
from calmctl.baselines.places import matrices_of, targeted
from calmctl.errors import UserError

# alpha / rank, for every rank, as in LLM-Adapters (rank 32, alpha 64).
SCALING = 2
HOLDER = "anchor"


def units(anchor: PreTrainedModel, options: AdapterOptions) -> dict[str, int]:
    """Return the parameters per rank of each matrix's update.

    Raises:
        UserError: no matrix is left, or a target names none.
    """
    if options.targets:
        found: Mapping[str, nn.Linear | Conv1D] = targeted(anchor, "lora", options.targets)
    elif not (found := matrices_of(anchor, options.where)):
        raise UserError(f"{type(anchor).__name__}: no matrix of its {options.where} blocks can take a low-rank update")
    return {name: sum(linear.weight.shape) for name, linear in found.items()}


def attach(anchor: PreTrainedModel, sizes: Mapping[str, int], options: AdapterOptions) -> nn.ModuleDict:
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
        alpha_pattern={name: (options.scaling or SCALING) * rank for name, rank in patterns.items()},
        lora_dropout=options.dropout,
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
