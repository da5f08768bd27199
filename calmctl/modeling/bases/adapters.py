"""Adapters of peft: merged into the weights of their model when it is loaded."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import HUB_ARGUMENTS
from calmctl.modeling.bases.source_files import ADAPTER_WEIGHT_FILES, unloadable

ADAPTER = "default"


def has_adapters(model: Any) -> bool:
    """Tell whether an object is a model of peft, or one that contains adapter layers of peft."""
    if not isinstance(model, nn.Module) or "peft" not in sys.modules:
        return False
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(model, PeftModel) or any(isinstance(module, BaseTunerLayer) for module in model.modules())


def with_adapter(model: PreTrainedModel, name: str, revision: str, arguments: dict[str, Any]) -> PreTrainedModel:
    """Merge a stored adapter into a model's weights; return the model under the adapter's name.

    Updates are computed in float64, so that rounding gives the same weights, and fingerprints, on every machine.

    Args:
        name: folder or hub id of the adapter.
        arguments: of `from_pretrained`.

    Raises:
        UserError: the adapter cannot be merged or does not fit the model, or the model is quantised.
    """
    from peft import PeftConfig, PeftModelForCausalLM

    hub = {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}
    is_local = Path(name).is_dir()
    where = {} if is_local else {"revision": revision, **hub}
    if is_local and not any((Path(name) / file).exists() for file in ADAPTER_WEIGHT_FILES):
        raise UserError(f"{name}: an adapter without weights; {' or '.join(ADAPTER_WEIGHT_FILES)} is missing")
    if getattr(model.config, "quantization_config", None):
        raise UserError(f"{name}: an adapter cannot be merged into a quantised model; load its model unquantised")
    try:
        config = PeftConfig.from_pretrained(name, **where)
        kind = getattr(config.peft_type, "value", config.peft_type)
        if config.task_type not in (None, "CAUSAL_LM"):
            raise UserError(f"{name}: an adapter for {config.task_type}, not for a causal language model")
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise UserError(f"{name}: an adapter of kind {kind}, which cannot be merged into the weights of a model")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses an old name of transformers
            wrapped = PeftModelForCausalLM(model, config, adapter_name=ADAPTER)
        result = wrapped.load_adapter(name, ADAPTER, torch_device="cpu", **where)
        stray = [*result.missing_keys, *result.unexpected_keys]
        if stray:
            raise UserError(
                f"{name}: the adapter does not fit {model.config._name_or_path!r}: {len(result.missing_keys)} of its "
                f"weights are missing, {len(result.unexpected_keys)} not in the model ({', '.join(stray[:3])})"
            )
        for key, parameter in wrapped.named_parameters():
            # Modules that were trained as a whole are no updates: they replace the model's own.
            if f".{ADAPTER}" in key and ".modules_to_save." not in key and parameter.is_floating_point():
                parameter.data = parameter.data.to(torch.float64)
        merged = wrapped.merge_and_unload(safe_merge=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise unloadable("an adapter", name, error) from error
    vars(merged).pop("peft_config", None)
    merged.requires_grad_(True)
    merged.config._name_or_path = name
    merged.config._commit_hash = None if is_local else revision
    return merged.eval()
