"""The two kinds of training that the program runs: a whole model, and the bridges of a composition."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.files import sha256_of
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.placement import is_movable
from calmctl.modeling.selfcheck import check_composition
from calmctl.modeling.sources import load_base, load_tokenizer, source_sha256
from calmctl.ranks import current_ranks
from calmctl.runs import Run
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.distributed import started_run
from calmctl.training.session import set_up, train_into


def run_training(config: TrainConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Train a model as configured; resume it, or return at once when it is complete.

    Raises:
        UserError: the configuration names no model, or data, tokenizer or base cannot be used.
    """
    config.check()
    _require(config.dataset, "dataset", "--data FILE")
    inputs = {**data_sha256(config.dataset, config.validation), "base": source_sha256(config.base)}
    with started_run(out, kind="train", config=config, command=command, seed=config.seed, inputs=inputs) as run:
        if not run.is_complete:
            set_up(config.train, config.seed)
            tokenizer = load_tokenizer(config.tokenizer or config.base)
            model = load_base(config.base, dtype=torch.float32) if config.base else new_model(config.model, tokenizer)
            train_into(run, model, tokenizer, config.dataset, config.train, config.seed, validation=config.validation)
        return run


def run_composition(config: ComposeConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Compose and train the bridges as configured; resume, or return at once when complete.

    Raises:
        UserError: anchor, aug or data are missing or do not fit together.
    """
    _require(config.anchor, "anchor", "--anchor MODEL")
    _require(config.augs, "augs", "--aug MODEL")
    _require(config.dataset, "dataset", "--data FILE")
    inputs = {**data_sha256(config.dataset, config.validation), "anchor": source_sha256(config.anchor)}
    inputs |= {f"aug_{index}": source_sha256(aug) for index, aug in enumerate(config.augs)}
    with started_run(out, kind="compose", config=config, command=command, seed=config.seed, inputs=inputs) as run:
        if not run.is_complete:
            set_up(config.train, config.seed)
            tokenizer = load_tokenizer(config.anchor)
            options: dict[str, Any] = asdict(config.bridge)
            if config.attention:
                options["attn_implementation"] = config.attention
            model = compose(
                config.anchor,
                list(config.augs),
                config.connections,
                every=config.every,
                num=config.num,
                aug_reads=config.aug_reads,
                aug_seed=config.seed if config.random_aug else None,
                **options,
            )
            train_into(
                run,
                model,
                tokenizer,
                config.dataset,
                config.train,
                config.seed,
                validation=config.validation,
                merge_bases=config.merge_bases,
                facts={"self_check": _checked(model, config, run.path)},
            )
        return run


def _checked(model: ComposedModelForCausalLM, config: ComposeConfig, folder: Path) -> dict[str, float] | str:
    """Check a composed model on itself, in the first process, and return what a run says of it.

    Raises:
        UserError: the check fails. The first process tells; the others exit with its code.
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
            torch.nn.Module.to(model, ranks.device)  # where it is trained, and quicker
        measured = check_composition(model, folder)
    except BaseException:
        ranks.from_first()  # nobody waits for what will not come
        raise
    return ranks.from_first(measured)


def model_config(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the configuration of a new model, with the tokenizer's vocabulary and special tokens.

    Raises:
        UserError: `model_type` is missing or unknown, or a setting does not fit it.
    """
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return model_config_of_size(settings, len(tokenizer), **special)


def model_config_of_size(
    settings: dict[str, Any], vocab_size: int, **special_token_ids: int | None
) -> PreTrainedConfig:
    """Return the configuration of a new model with so many token ids.

    Raises:
        UserError: `model_type` is missing or unknown, or a setting does not fit it.
    """
    arguments = {name: value for name, value in settings.items() if name not in ("model_type", "attn_implementation")}
    model_type = str(settings.get("model_type"))
    try:
        return AutoConfig.for_model(model_type, vocab_size=vocab_size, **special_token_ids, **arguments)
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.model_type={model_type!r}: no such configuration can be built ({reason})") from error


def new_model(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a randomly initialised model of a configuration (see `model_config`)."""
    attention = {"attn_implementation": settings["attn_implementation"]} if "attn_implementation" in settings else {}
    return AutoModelForCausalLM.from_config(model_config(settings, tokenizer), **attention)


def data_sha256(dataset: str, validation: str = "") -> dict[str, str]:
    """Return the checksums of what a run trains and validates on, by name, as `Run.start` takes them."""
    files = {"data": dataset, "validation": validation}
    return {name: sha256_of(Path(file)) if Path(file).is_file() else file for name, file in files.items() if file}


def _require(value: object, name: str, option: str) -> None:
    if not value:
        raise UserError(f"{name} is not set; give {option} or {name}=...")
