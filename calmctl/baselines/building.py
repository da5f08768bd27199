"""Adapting: an anchor, a method and how large in; an adapted model out, nothing trained yet."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from calmctl.baselines.adapted import AdaptedModelForCausalLM
from calmctl.baselines.configuration import AdaptedConfig
from calmctl.baselines.methods import ADAPTERS
from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bases.sources import load_base
from calmctl.modeling.probe import deviation, probe_ids, tolerance, unchanged_chance
from calmctl.modeling.stored.parts import PartsModel

# Rows and tokens that a new model is tried on.
PROBED = (1, 6)
# By how many percent numbers of parameters may differ that count as equal; adapters of real models come far nearer.
MOST_PERCENT = 5.0


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
        method: one of `methods.ADAPTERS`.
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
    units = ADAPTERS[method].units(model, where or ADAPTERS[method].where)
    planned = sum(units[name] * size for name, size in sizes.items())
    before = _probe(model, model)
    config = AdaptedConfig(anchor=model.config.to_dict(), method=method, sizes=sizes)
    try:
        adapted = AdaptedModelForCausalLM(config, model)
    except Exception as error:
        raise _refusal(method, model, error) from error
    _check(adapted, planned, before)
    return adapted


def _check(model: AdaptedModelForCausalLM, planned: int, before: Tensor) -> None:
    """See that a new adapted model has the parameters that were planned, and that its method works on its anchor.

    Args:
        before: what the anchor made of the probe before anything was put into it.

    Raises:
        UserError: one line with the method, the class of the anchor, and what is wrong.
    """
    method, name = model.config.method, type(model.anchor).__name__
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if trained != planned:
        raise UserError(f"method={method} on a {name} would train {trained} parameters, {planned} were asked for")
    try:
        after = _probe(model, model.anchor, gradient=True)
    except Exception as error:
        raise _refusal(method, model.anchor, error) from error
    change = deviation(after, before)
    if not math.isfinite(change):
        raise UserError(f"method={method} on a {name} gives logits that are no finite numbers")
    # All but prefixes begin as nothing.
    if method != "prefix" and change > tolerance([model.anchor]):
        raise UserError(f"method={method} changes what a {name} computes before it is trained (by {change:.2g})")


def _refusal(method: str, anchor: PreTrainedModel, error: Exception) -> Exception:
    """Return the error that says in one line that a method does not work on a model."""
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return error
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return UserError(f"method={method} does not work on a {type(anchor).__name__} ({reason})")


def _probe(model: PreTrainedModel, anchor: PreTrainedModel, gradient: bool = False) -> Tensor:
    """Return the logits of a few tokens, after a backward pass if wanted, of which nothing is left."""
    ids = probe_ids([anchor], *PROBED)
    with unchanged_chance(ids.device), torch.set_grad_enabled(gradient):
        logits = model(input_ids=ids, use_cache=False).logits
        if gradient:
            logits.float().logsumexp(-1).sum().backward()
            model.zero_grad(set_to_none=True)
    return logits.detach()


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
    if isinstance(anchor, PartsModel):
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


def matched_sizes(units: Mapping[str, int], target: int) -> dict[str, int]:
    """Return the size of each adapter, so that all together come as near to a number of parameters as they can.

    All adapters get one size, the largest that stays below the target. What is missing is made up by one more for some
    of them, those first to which one more adds most. Adapters of size 0 are left out.

    Args:
        units: parameters that one more of its size (a rank, a virtual token, ...) adds to each adapter.
        target: trainable parameters.

    Raises:
        UserError: the target is too small for any adapter, or they do not come near it.
    """
    uniform, missing = divmod(target, sum(units.values()))
    sizes = dict.fromkeys(units, uniform)
    for name in sorted(units, key=lambda name: -units[name]):
        if units[name] <= missing:
            sizes[name] += 1
            missing -= units[name]
    smallest = min((name for name in units if sizes[name] == uniform), key=lambda name: units[name])
    if abs(missing - units[smallest]) < missing:
        sizes[smallest] += 1
    if not any(sizes.values()):
        raise UserError(f"{target} trainable parameters are too few: the smallest adapter has {min(units.values())}")
    found = sum(units[name] * size for name, size in sizes.items())
    if abs(percent := difference_percent(found, target)) > MOST_PERCENT:
        raise UserError(
            f"{target} trainable parameters cannot be had: the nearest that these adapters come to is {found} "
            f"({percent:+.1f} percent; {MOST_PERCENT:g} count as equal)"
        )
    return {name: size for name, size in sizes.items() if size}


def difference_percent(parameters: int, target: int) -> float:
    """Return by how many percent a number of parameters differs from the one wanted."""
    return 100 * (parameters - target) / target
