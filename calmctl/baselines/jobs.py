"""Training a baseline: the anchor with a method's adapters, on the path that every training takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from calmctl.baselines.adapted import unmergeable
from calmctl.baselines.building import adapt
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.configuration import AdaptedConfig
from calmctl.baselines.methods import ADAPTERS, FULL, METHODS
from calmctl.baselines.plan import baseline_facts, matching
from calmctl.errors import UserError
from calmctl.modeling.bases.sources import base_config, load_base, load_tokenizer, source_sha256
from calmctl.runs.run import Run, read_run
from calmctl.training.job import Checked, Job, check_attention, data_sha256, run_job
from calmctl.training.session import num_trainable


def run_baseline(config: BaselineConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Train a baseline as configured; resume, or return at once when complete.

    `run.json` says beside what every training does: `method`, `matched_parameters` (the number wanted), and
    `difference_percent` of `trainable_parameters` from it.

    Raises:
        UserError: anchor or data are missing, or the method does not fit the anchor or the number of parameters.
    """
    return run_job(baseline_job(config), out, command)


def baseline_job(config: BaselineConfig) -> Job:
    """Return the training of a baseline.

    Raises:
        UserError: the configuration does not say what is trained, on what, and how large it is to be.
    """
    check(config)
    target = target_parameters(config)

    how = {"trust_remote_code": config.trust_remote_code}

    def checked() -> Checked:
        anchor = base_config(config.anchor, **how)
        check_attention(anchor, config.attention)
        facts = baseline_facts(config, anchor, target)
        is_plain = config.method == FULL or config.merge
        stored = anchor if is_plain else AdaptedConfig(anchor.to_dict(), config.method)
        return Checked(load_tokenizer(config.anchor, **how), stored, [anchor], facts)

    inputs = {**data_sha256(config.dataset, config.validation), "anchor": source_sha256(config.anchor)}
    if target is not None:
        inputs["parameters"] = str(target)
    return Job(
        "baseline", config, config.seed, config.settings, config.dataset, config.validation, inputs, checked,
        build=lambda tokenizer: build(config, target),
        merge_bases=config.merge,
        facts=lambda model, folder: {"method": config.method, **matching(num_trainable(model), target)},
    )  # fmt: skip


def check(config: BaselineConfig) -> None:
    """Raise UserError unless the configuration says what is trained, on what, and how large it is to be."""
    if config.method not in METHODS:
        raise UserError(f"method={config.method!r} is not one of {', '.join(METHODS)}")
    for name, option in (("anchor", "--anchor MODEL"), ("dataset", "--data FILE")):
        if not getattr(config, name):
            raise UserError(f"{name} is not set; give {option} or {name}=...")
    given = [name for name in ("match", "parameters", "size") if getattr(config, name)]
    if config.method == FULL:
        if unwanted := [name for name in ("size", "where", "merge") if getattr(config, name)]:
            raise UserError(f"{unwanted[0]}: method full trains the whole anchor; leave it out")
        return
    if len(given) != 1:
        what = " and ".join(given) or "nothing"
        raise UserError(f"{what} is given; give one of --match RUN, --parameters N and size=N to say how large it is")
    if config.merge and ADAPTERS[config.method].merged is None:
        raise unmergeable(config.method)


def target_parameters(config: BaselineConfig) -> int | None:
    """Return the number of trainable parameters that is wanted; None = none in particular.

    Raises:
        UserError: the run to match does not know its own.
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
    """Return the model to train: the anchor with new adapters in it, or the anchor itself.

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
        config.anchor, config.method, parameters=target, size=config.size or None, where=config.where, **arguments
    )
