"""Adapting: an anchor and a method in, an adapted model out, nothing trained yet."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from calmctl.baselines.adapted import AdaptedModelForCausalLM
from calmctl.baselines.configuration import AdaptedConfig
from calmctl.baselines.methods import ADAPTERS
from calmctl.baselines.sizes import matched_sizes
from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.sources import load_base
from calmctl.modeling.storing import StoredInParts


def adapt(
    anchor: PreTrainedModel | str | Path,
    method: str,
    *,
    parameters: int | None = None,
    size: int | None = None,
    where: str = "",
    **load_arguments: Any,
) -> AdaptedModelForCausalLM:
    """Put adapters into an anchor, which it freezes; nothing is trained yet.

    Args:
        anchor: a model (which is changed), path or hub id.
        method: "lora", "prefix", "series" or "parallel".
        parameters: trainable parameters to come as near to as possible.
        size: rank, virtual tokens or width of every adapter instead.
        where: blocks to adapt, "attention", "feed_forward" or "both"; empty = the method's own choice.
        load_arguments: passed to `from_pretrained` of an anchor given as path or id.

    Raises:
        UserError: no such method, not exactly one of `parameters` and `size`, or an anchor that cannot be adapted.
    """
    check_method(method)
    model = load_base(anchor, **load_arguments)
    sizes = sizes_for(model, method, parameters, size, where)
    config = AdaptedConfig(anchor=model.config.to_dict(), method=method, sizes=sizes)
    return AdaptedModelForCausalLM(config, model)


def sizes_for(
    anchor: PreTrainedModel, method: str, parameters: int | None, size: int | None, where: str = ""
) -> dict[str, int]:
    """Return the size of every adapter of a method, by the name of the module that is adapted.

    Raises:
        UserError: not exactly one of `parameters` and `size` is given, the anchor cannot be adapted, or the adapters
            would be larger than it is.
    """
    if bool(parameters) == bool(size):
        raise UserError("give either a number of trainable parameters or a size")
    if isinstance(anchor, StoredInParts):
        raise UserError("the anchor is itself composed or adapted; give a plain model (LoRA can be merged into one)")
    layers.check_base(anchor, "anchor")
    adapter = ADAPTERS[method]
    units = adapter.units(anchor, where or adapter.where)
    sizes = dict.fromkeys(units, size) if size else matched_sizes(units, parameters or 0)
    wanted = sum(units[name] * size for name, size in sizes.items())
    if wanted > (whole := sum(parameter.numel() for parameter in anchor.parameters())):
        raise UserError(
            f"{wanted} trainable parameters are more than the whole anchor has ({whole}); use fewer, or method full"
        )
    return sizes


def check_method(method: str) -> None:
    """Raise UserError unless there is an adapter of this name."""
    if method not in ADAPTERS:
        raise UserError(f"method={method!r} is not one of {', '.join(ADAPTERS)}")
