"""The job that trains the bridges of a composition: plan, build, calibrate, self-check."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.modeling import layers
from calmctl.modeling.bases.locating import source_sha256
from calmctl.modeling.bases.sources import load_tokenizer
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import CheckedParts, check_parts, compose
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.options import BridgeConfig
from calmctl.modeling.placement import is_movable
from calmctl.modeling.selfcheck import check_composition
from calmctl.modeling.stored.warm_start import check_same_form, load_parts_of, parts_config
from calmctl.processes.ranks import current_ranks
from calmctl.training.batches import Batches, alike
from calmctl.training.checks import check_attention
from calmctl.training.configs import ComposeConfig
from calmctl.training.examples import Examples
from calmctl.training.job import Job
from calmctl.training.packing import check_packing_of_augs
from calmctl.training.plan import model_of, plan_composition
from calmctl.training.prepared import Planned
from calmctl.training.settings import TrainSettings

CALIBRATION_STREAM = 0xCA11
# Limits of calibration: examples, tokens, and tokens per batch (padding included; a longer example comes alone).
EXAMPLES, TOKENS, AT_ONCE = 32, 8192, 2048


def composition_job(config: ComposeConfig) -> Job:
    """Return the job that trains the bridges of a composition.

    Raises:
        UserError: anchor, augs or data are not given or do not exist.
    """
    config.check_inputs()
    how = {"trust_remote_code": config.trust_remote_code}

    @cache  # for the plan and for the model: tokenizers are read once
    def checked() -> CheckedParts:
        return check_parts(
            config.anchor,
            config.augs,
            config.aug_reads,
            how,
            config.segmentation,
            config.markers,
            attention=config.attention,
        )

    def plan() -> Planned:
        parts = checked()
        if config.train.packing:
            check_packing_of_augs(config.aug_reads, parts.shapes[1:], parts.own)
        bases = [shape.config for shape in parts.shapes]
        for base in bases:
            check_attention(base, config.attention)
        anchor, *augs = map(model_of, parts.shapes)
        stored = ComposedConfig(bases[0].to_dict(), [aug.to_dict() for aug in bases[1:]])
        composition = plan_composition(config, anchor, augs)
        if config.init_from:
            _check_same_bridges(config, bases, [row["connections"] for row in composition.about["bridges"]])
        tokenizer = parts.tokenizer or load_tokenizer(config.anchor, **how)  # raises if there is none
        return Planned(composition, tokenizer, stored, bases, parts.segmenters(), parts.warnings())

    def build(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        options: dict[str, Any] = asdict(config.bridge) | how
        if config.attention:
            options["attn_implementation"] = config.attention
        return compose(
            config.anchor,
            list(config.augs),
            config.connections,
            every=config.every,
            num=config.num,
            aug_reads=config.aug_reads,
            aug_seed=config.seed if config.random_aug else None,
            segmentation=config.segmentation,
            markers=config.markers,
            parts=checked(),
            **options,
        )

    def begin(model: PreTrainedModel, examples: Examples | None, folder: Path) -> Mapping[str, Any]:
        composed = cast(ComposedModelForCausalLM, model)
        if config.init_from:
            load_parts_of(composed, config.init_from)  # with the streams that they were calibrated on
        elif examples is not None:
            calibrate_on(examples, composed, config.train, config.seed)
        return {"self_check": _self_check(composed, config, folder)}

    def reads() -> dict[str, str]:
        augs = {f"aug_{index}": source_sha256(aug) for index, aug in enumerate(config.augs)}
        return {"anchor": source_sha256(config.anchor), **augs}

    return Job("compose", config, reads, plan, build, begin, config.merge_bases)


def _check_same_bridges(config: ComposeConfig, bases: Sequence[PreTrainedConfig], connections: list[Any]) -> None:
    """Raise UserError unless the bridges to begin with have this composition's connections, form and widths."""
    stored = parts_config(config.init_from, ComposedConfig)

    def form(bridge: BridgeConfig, bases: Sequence[PreTrainedConfig], connections: list[Any]) -> dict[str, Any]:
        heads = bridge.num_heads or layers.num_heads(bases[0])
        # How bridges start, and what is dropped in training, are not theirs.
        shown = asdict(replace(bridge, num_heads=heads, zero_init=True, dropout=0.0))
        return {"connections": connections, "widths": [*map(layers.hidden_size, bases)]} | {
            f"bridge.{name}": value for name, value in shown.items()
        }

    theirs = form(
        BridgeConfig.stored(stored.bridge), [stored.anchor_config(), *stored.aug_configs()], stored.connections
    )
    check_same_form(config.init_from, theirs, form(config.bridge, bases, connections))


def calibrate_on(examples: Examples, model: ComposedModelForCausalLM, settings: TrainSettings, seed: int) -> None:
    """Calibrate the bridges on examples drawn by the seed (see `ComposedModelForCausalLM.calibrate`).

    Afterwards all processes hold the first one's result.
    """
    ranks = current_ranks()
    if is_movable(model) and settings.sharding == "none":
        torch.nn.Module.to(model, ranks.device)
    batches = Batches(examples, settings, seed, pad_id=0)
    device = layers.device_of(model.get_input_embeddings())
    model.calibrate(send_to_device(batches.collate(rows), device) for rows in chosen(examples.lengths, seed))
    # Different processors may round differently; the buffers must be equal on all ranks.
    buffers = dict(model.bridges.named_buffers())
    found = ranks.from_first({name: buffer.cpu() for name, buffer in buffers.items()})
    for name, buffer in buffers.items():
        buffer.copy_(found[name])


def chosen(lengths: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each calibration batch: randomly drawn examples within the limits, sorted by length."""
    drawn: list[int] = []
    for row in np.random.default_rng([seed, CALIBRATION_STREAM]).permutation(len(lengths)):
        if not drawn or lengths[[*drawn, row]].sum() <= TOKENS:
            drawn.append(int(row))
        if len(drawn) == EXAMPLES:
            break
    yield from alike(sorted(drawn, key=lambda row: lengths[row]), lengths, AT_ONCE)


def _self_check(model: ComposedModelForCausalLM, config: ComposeConfig, folder: Path) -> dict[str, float] | str:
    """Run the self-check in the first process, and return its facts for `run.json`.

    Raises:
        UserError: the check fails; raised in the first process, the others exit with its code.
    """
    if not config.self_check:
        return "left out"
    ranks = current_ranks()
    if not ranks.is_first:
        if not (measured := ranks.from_first()):
            raise SystemExit(2)
        return measured
    try:
        if is_movable(model) and config.train.sharding == "none":
            torch.nn.Module.to(model, ranks.device)  # the device it trains on, and faster
        measured = check_composition(model, folder)
    except BaseException:
        ranks.from_first()  # release the ranks that wait for the result
        raise
    return ranks.from_first(measured)
