"""The job that trains a baseline: the anchor with a method's adapters, or the whole anchor."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from calmctl.baselines.adapted import unmergeable
from calmctl.baselines.building import adapt, difference_percent, sizes_for, virtual_tokens
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.configuration import AdaptedConfig
from calmctl.baselines.methods import ADAPTERS, options_for, stored_options
from calmctl.baselines.options import FULL, AdapterOptions
from calmctl.errors import UserError
from calmctl.modeling.bases.locating import source_sha256
from calmctl.modeling.bases.public_shapes import Shape
from calmctl.modeling.bases.sources import base_config, load_base, load_tokenizer
from calmctl.modeling.configuration import PartsConfig
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.stored.warm_start import check_same_form, load_parts_of, parts_config
from calmctl.runs.run import read_run
from calmctl.training.checks import check_attention
from calmctl.training.cost import DecoderFlops, adapter_training, num_trainable
from calmctl.training.job import Job
from calmctl.training.plan import Plan, PlannedModel, backward_of, described, model_of, plan_whole
from calmctl.training.prepared import Planned


def baseline_job(config: BaselineConfig) -> Job:
    """Return the job that trains a baseline.

    Its `run.json` has further entries: `method`, `matched_parameters` (the target), and `difference_percent` (of
    `trainable_parameters` from the target).

    Raises:
        UserError: the configuration does not say what to train, on which data, and how large.
    """
    check(config)
    target = target_parameters(config)
    how = {"trust_remote_code": config.trust_remote_code}

    def plan() -> Planned:
        anchor = base_config(config.anchor, **how)
        check_attention(anchor, config.attention)
        if config.method == FULL and isinstance(anchor, PartsConfig):
            raise UserError(f"anchor={config.anchor}: full trains plain models")
        model = model_of(Shape(anchor))
        planned = plan_baseline(config, model, target)
        if config.init_from:
            _check_same_adapters(config, model, target)
        is_plain = config.method == FULL or config.merge
        virtual = model.context - planned.model.context
        stored = anchor if is_plain else AdaptedConfig(anchor.to_dict(), config.method, virtual_tokens=virtual)
        return Planned(planned, load_tokenizer(config.anchor, **how), stored, [anchor])

    def begin(model: PreTrainedModel, *_: Any) -> Mapping[str, Any]:
        if config.init_from:
            load_parts_of(cast(PartsModel, model), config.init_from)
        return {"method": config.method, **matching(num_trainable(model), target)}

    def reads() -> dict[str, str]:
        size = {"parameters": str(target)} if target is not None else {}
        return {"anchor": source_sha256(config.anchor), **size}

    return Job(
        "baseline", config, reads, plan,
        build=lambda tokenizer: build(config, target),
        begin=begin,
        merge_bases=config.merge,
    )  # fmt: skip


def _check_same_adapters(config: BaselineConfig, anchor: PlannedModel, target: int | None) -> None:
    """Raise UserError unless the adapters to begin with are of this method, with its sizes and options."""
    stored = parts_config(config.init_from, AdaptedConfig)
    check_same_form(config.init_from, {"method": stored.method}, {"method": config.method})
    ours, theirs = options_for(config.method, config.options), stored_options(stored.method, stored.options)
    sizes = sizes_for(anchor.plain, config.method, target, config.size or None, ours)
    check_same_form(config.init_from, {"modules": sorted(stored.sizes)}, {"modules": sorted(sizes)})

    def form(options: AdapterOptions, sizes: Mapping[str, int]) -> dict[str, Any]:
        return {"activation": options.activation, "scaling": options.scaling, **sizes}

    check_same_form(config.init_from, form(theirs, stored.sizes), form(ours, sizes))


def plan_baseline(config: BaselineConfig, anchor: PlannedModel, target: int | None) -> Plan:
    """Return the plan of a baseline: the sizes of its adapters, and how close they come to the target.

    Args:
        target: target number of trainable parameters; None = no target.

    Raises:
        UserError: the method does not fit the anchor or the number of parameters.
    """
    about = {"method": config.method, "anchor": {"source": config.anchor, **described(anchor)}}
    if config.method == FULL:
        whole = plan_whole(config, anchor, config.attention, "all of m_B", about)
        return replace(whole, more=matching(anchor.parameters, target))
    method, backward = ADAPTERS[config.method], backward_of(config.attention)
    options = options_for(config.method, config.options)
    sizes = sizes_for(anchor.plain, config.method, target, config.size or None, options)
    counts = Counter(sizes.values())
    trainable, virtual = method.parameters(anchor.plain, sizes, options), virtual_tokens(config.method, sizes)

    def flops(length: int) -> float:
        """Return the FLOPs per token, those of virtual tokens shared among the others."""
        read = length + virtual
        return adapter_training(DecoderFlops(anchor.plain), trainable, read, backward) * read / length

    return Plan(
        f"{method.title}, {method.size} {' to '.join(map(str, sorted(counts)))}",
        config,
        anchor.with_parts(trainable, virtual_tokens=virtual),
        trainable,
        flops,
        frozen_bytes=anchor.weight_bytes,
        about={**about, "adapters": {f"{method.size} {size}": f"{counts[size]} modules" for size in sorted(counts)}},
        more=matching(trainable, target),
    )


def matching(trainable: int, target: int | None) -> Mapping[str, Any]:
    """Return the facts that compare a number of parameters with its target; empty without a target."""
    if target is None:
        return {}
    return {"matched_parameters": target, "difference_percent": round(difference_percent(trainable, target), 3)}


def check(config: BaselineConfig) -> None:
    """Raise UserError unless the configuration says what to train, on which data, and how large."""
    config.check_inputs()
    given = [name for name in ("match", "parameters", "size") if getattr(config, name)]
    if config.method == FULL:
        named = [name for name in ("size", "merge", "init_from") if getattr(config, name)]
        unwanted = [*named, *config.options.changed()]
        if unwanted:
            raise UserError(f"{unwanted[0]}: method full trains the whole anchor; leave it out")
        return
    options_for(config.method, config.options)
    if len(given) != 1:
        what = " and ".join(given) or "nothing"
        raise UserError(f"{what} is given; give one of --match RUN, --parameters N and size=N to say how large it is")
    if config.merge and ADAPTERS[config.method].merged is None:
        raise unmergeable(config.method)


def target_parameters(config: BaselineConfig) -> int | None:
    """Return the target number of trainable parameters; None = no target.

    Raises:
        UserError: the run to match has not finished or trained nothing.
    """
    if not config.match:
        return config.parameters or None
    run = read_run(Path(config.match))
    found = run.facts.get("trainable_parameters")
    if not found:
        reason = "trained nothing" if run.is_complete else "has not finished; its parameters are not known yet"
        raise UserError(f"match={config.match}: this run of kind {run.kind} {reason}")
    return int(found)


def build(config: BaselineConfig, target: int | None) -> PreTrainedModel:
    """Return the model to train: the anchor with new adapters, or the anchor itself.

    Raises:
        UserError: the method does not fit the anchor or the number of parameters.
    """
    arguments: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.attention:
        arguments["attn_implementation"] = config.attention
    if config.method == FULL:
        # Whole models are trained in float32, whatever they are stored in.
        return load_base(config.anchor, dtype=torch.float32, **arguments)
    return adapt(
        config.anchor, config.method, parameters=target, size=config.size or None, options=config.options, **arguments
    )
