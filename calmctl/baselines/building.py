"""Adapting an anchor: choose the adapters' sizes, insert them, and check the untrained model."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from calmctl.baselines.adapted import AdaptedModelForCausalLM
from calmctl.baselines.configuration import AdaptedConfig
from calmctl.baselines.methods import ADAPTERS, options_for
from calmctl.baselines.options import AdapterOptions
from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bases.sources import load_base
from calmctl.modeling.configuration import declared_context
from calmctl.modeling.probe import deviation, probe_ids, tolerance, unchanged_chance
from calmctl.modeling.stored.parts import PartsModel

# (rows, tokens) of the probe that a new model is tested on.
PROBED = (1, 6)
# Parameter counts that differ by at most this many percent count as equal; on real models adapters come far nearer.
MOST_PERCENT = 5.0


def adapt(
    anchor: PreTrainedModel | str | Path,
    method: str,
    *,
    parameters: int | None = None,
    size: int | None = None,
    options: AdapterOptions | None = None,
    **load_arguments: Any,
) -> AdaptedModelForCausalLM:
    """Freeze an anchor and insert untrained adapters.

    Args:
        anchor: a model (which is changed), path or hub id.
        method: one of `methods.ADAPTERS`.
        parameters: target number of trainable parameters.
        size: rank, virtual tokens or width of every adapter, instead of `parameters`.
        options: where the adapters sit, what they compute and how they start; None = the method's defaults.
        load_arguments: passed to `from_pretrained` of an anchor given as path or id.

    Raises:
        UserError: unknown method, an option that it does not have, not exactly one of `parameters` and `size`, or an
            anchor that cannot be adapted.
    """
    check_method(method)
    model = load_base(anchor, **load_arguments).eval()
    chosen = options_for(method, options or AdapterOptions())
    sizes = sizes_for(model, method, parameters, size, chosen)
    planned = ADAPTERS[method].parameters(model, sizes, chosen)
    before = _probe(model, model)
    config = AdaptedConfig(
        anchor=model.config.to_dict(),
        method=method,
        sizes=sizes,
        options=chosen.changed(),
        virtual_tokens=virtual_tokens(method, sizes),
    )
    try:
        adapted = AdaptedModelForCausalLM(config, model)
    except Exception as error:
        raise _refusal(method, model, error) from error
    _check(adapted, planned, before)
    return adapted


def _check(model: AdaptedModelForCausalLM, planned: int, before: Tensor) -> None:
    """Check that a new adapted model has the planned number of parameters and that its method works on its anchor.

    Args:
        before: the anchor's logits on the probe before adapters were inserted.

    Raises:
        UserError: one line with the method, the class of the anchor, and what is wrong.
    """
    method, name = model.config.method, type(model.anchor).__name__
    is_neutral = ADAPTERS[method].is_neutral and model.config.options.get("init", "neutral") == "neutral"
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
    if is_neutral and change > tolerance([model.anchor]):
        raise UserError(f"method={method} changes what a {name} computes before it is trained (by {change:.2g})")


def _refusal(method: str, anchor: PreTrainedModel, error: Exception) -> Exception:
    """Return a one-line UserError for a method that fails on a model; UserError and out of memory stay as they are."""
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return error
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return UserError(f"method={method} does not work on a {type(anchor).__name__} ({reason})")


def _probe(model: PreTrainedModel, anchor: PreTrainedModel, gradient: bool = False) -> Tensor:
    """Return the logits of the probe; with `gradient`, also run a backward pass and drop its gradients."""
    ids = probe_ids([anchor], *PROBED)
    with unchanged_chance(ids.device), torch.set_grad_enabled(gradient):
        logits = model(input_ids=ids, use_cache=False).logits
        if gradient:
            logits.float().logsumexp(-1).sum().backward()
            model.zero_grad(set_to_none=True)
    return logits.detach()


def sizes_for(
    anchor: PreTrainedModel, method: str, parameters: int | None, size: int | None, options: AdapterOptions
) -> dict[str, int]:
    """Return the size of every adapter of a method, by the name of the adapted module.

    Raises:
        UserError: not exactly one of `parameters` and `size` is given, the anchor cannot be adapted, or the adapters
            would have more parameters than the anchor.
    """
    if bool(parameters) == bool(size):
        raise UserError("give either a number of trainable parameters or a size")
    if isinstance(anchor, PartsModel):
        raise UserError("the anchor is itself composed or adapted; give a plain model (LoRA can be merged into one)")
    layers.check_base(anchor, "anchor")
    adapter, chosen = ADAPTERS[method], options_for(method, options)
    units, fixed = adapter.units(anchor, chosen), adapter.fixed_parameters(anchor)
    sizes = dict.fromkeys(units, size) if size else matched_sizes(units, parameters or 0, fixed)
    wanted = adapter.parameters(anchor, sizes, chosen)
    if wanted > (whole := sum(parameter.numel() for parameter in anchor.parameters())):
        raise UserError(
            f"{wanted} trainable parameters are more than the whole anchor has ({whole}); use fewer, or method full"
        )
    virtual, context = virtual_tokens(method, sizes), declared_context(anchor.config)
    if context is not None and virtual >= context:
        raise UserError(
            f"{virtual} virtual tokens leave no room in a context of {context}; use fewer (size=N), or another method"
        )
    return sizes


def virtual_tokens(method: str, sizes: Mapping[str, int]) -> int:
    """Return how many tokens a method puts before every text."""
    return max(sizes.values()) if ADAPTERS[method].is_prompt else 0


def check_method(method: str) -> None:
    """Raise UserError for an unknown adapter method."""
    if method not in ADAPTERS:
        raise UserError(f"method={method!r} is not one of {', '.join(ADAPTERS)}")


def matched_sizes(units: Mapping[str, int], target: int, fixed: int = 0) -> dict[str, int]:
    """Return the size of each adapter, so that their parameters add up to the target as closely as possible.

    All adapters get the largest common size that does not exceed the target. The remainder goes to some of them, one
    unit each, those with the most parameters per unit first. Adapters of size 0 are left out.

    Args:
        units: parameters per unit of size (a rank, a virtual token, ...) of each adapter.
        target: number of trainable parameters.
        fixed: those of them that do not depend on the sizes.

    Raises:
        UserError: the target is too small for any adapter, or no sizes come close to it.
    """
    uniform, missing = divmod(max(target - fixed, 0), sum(units.values()))
    sizes = dict.fromkeys(units, uniform)
    for name in sorted(units, key=lambda name: -units[name]):
        if units[name] <= missing:
            sizes[name] += 1
            missing -= units[name]
    smallest = min((name for name in units if sizes[name] == uniform), key=lambda name: units[name])
    if abs(missing - units[smallest]) < missing:
        sizes[smallest] += 1
    if not any(sizes.values()):
        least = min(units.values()) + fixed
        raise UserError(f"{target} trainable parameters are too few: the smallest adapter has {least}")
    found = sum(units[name] * size for name, size in sizes.items()) + fixed
    if abs(percent := difference_percent(found, target)) > MOST_PERCENT:
        raise UserError(
            f"{target} trainable parameters cannot be had: the nearest that these adapters come to is {found} "
            f"({percent:+.1f} percent; {MOST_PERCENT:g} count as equal)"
        )
    return {name: size for name, size in sizes.items() if size}


def difference_percent(parameters: int, target: int) -> float:
    """Return the difference of a parameter count from its target, in percent of the target."""
    return 100 * (parameters - target) / target
