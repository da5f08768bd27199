"""The two kinds of training that the program runs: a whole model, and the bridges of a composition."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from calmctl.errors import UserError
from calmctl.files import sha256_of
from calmctl.modeling.bridge import BridgeConfig
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.layers import text_config
from calmctl.modeling.sources import load_base, load_tokenizer, quiet_libraries, source_sha256
from calmctl.runs import Run
from calmctl.training.batches import Batches
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import Examples, load_examples
from calmctl.training.settings import TrainSettings
from calmctl.training.trainer import RunTrainer, last_complete_checkpoint


@dataclass(frozen=True)
class TrainConfig:
    """Train a model from scratch, or an existing one further.

    Attributes:
        dataset: training file (JSONL or Parquet).
        tokenizer: path or hub id; empty = the base's.
        base: model to train further, a path, run or hub id; empty = from scratch, from `model`.
        model: configuration of a model from scratch: `model_type` and that configuration's own settings; the
            vocabulary and special tokens are the tokenizer's.
    """

    dataset: str = ""
    tokenizer: str = ""
    base: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        """Raise ValueError for a seed out of range."""
        check_seed(self.seed)

    def check(self) -> None:
        """Raise UserError unless the configuration says of one model how to get it."""
        if bool(self.base) == bool(self.model):
            raise UserError(
                "give --base MODEL with a preset that has no model settings (train further), "
                "or a preset with model settings and no --base (from scratch)"
            )


@dataclass(frozen=True)
class ComposeConfig:
    """Train the bridges between a frozen anchor and frozen augs.

    Attributes:
        anchor, augs: paths, runs or hub ids.
        dataset: D_C, the composition data (JSONL or Parquet).
        connections: [[aug_layer, anchor_layer], ...], per aug when there are several; None = every `every`-th layer
            of the aug, or `num` layers.
        aug_reads: `all` tokens, or the `prompt` only (the paper's ablation "m_A as an encoder").
        random_aug: give the augs untrained weights instead of their own (its ablation "random m_A").
        attention: attention implementation of the bases; empty = transformers' choice.
        merge_bases: write the bases too, which makes the model self-contained.
    """

    anchor: str = ""
    augs: tuple[str, ...] = ()
    dataset: str = ""
    connections: list[Any] | None = None
    every: int = 4
    num: int | None = None
    aug_reads: str = "all"
    random_aug: bool = False
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    attention: str = ""
    merge_bases: bool = False
    seed: int = 0
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        """Raise ValueError for a seed out of range."""
        check_seed(self.seed)


def check_seed(seed: int) -> None:
    """Raise ValueError unless every library that is seeded takes the seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must lie between 0 and {2**32 - 1}")


def run_training(config: TrainConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Train a model as configured; resume it, or return at once when it is complete.

    Raises:
        UserError: the configuration names no model, or data, tokenizer or base cannot be used.
    """
    config.check()
    _require(config.dataset, "dataset", "--data FILE")
    inputs = {"data": _sha256(config.dataset), "base": source_sha256(config.base)}
    with Run.start(out, kind="train", config=config, command=command, seed=config.seed, inputs=inputs) as run:
        if not run.is_complete:
            _set_up(config.train, config.seed)
            tokenizer = load_tokenizer(config.tokenizer or config.base)
            model = load_base(config.base, dtype=torch.float32) if config.base else new_model(config.model, tokenizer)
            _train(model, tokenizer, config.dataset, config.train, config.seed, run)
        return run


def run_composition(config: ComposeConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Compose and train the bridges as configured; resume, or return at once when complete.

    Raises:
        UserError: anchor, aug or data are missing or do not fit together.
    """
    _require(config.anchor, "anchor", "--anchor MODEL")
    _require(config.augs, "augs", "--aug MODEL")
    _require(config.dataset, "dataset", "--data FILE")
    inputs = {"data": _sha256(config.dataset), "anchor": source_sha256(config.anchor)}
    inputs |= {f"aug_{index}": source_sha256(aug) for index, aug in enumerate(config.augs)}
    with Run.start(out, kind="compose", config=config, command=command, seed=config.seed, inputs=inputs) as run:
        if not run.is_complete:
            _set_up(config.train, config.seed)
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
            _train(model, tokenizer, config.dataset, config.train, config.seed, run, merge_bases=config.merge_bases)
        return run


def model_config(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the configuration of a new model, with the tokenizer's vocabulary and special tokens.

    Raises:
        UserError: `model_type` is missing or unknown, or a setting does not fit it.
    """
    arguments = {name: value for name, value in settings.items() if name not in ("model_type", "attn_implementation")}
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model_type = str(settings.get("model_type"))
    try:
        return AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **special, **arguments)
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.model_type={model_type!r}: no such configuration can be built ({reason})") from error


def new_model(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a randomly initialised model of a configuration (see `model_config`)."""
    attention = {"attn_implementation": settings["attn_implementation"]} if "attn_implementation" in settings else {}
    return AutoModelForCausalLM.from_config(model_config(settings, tokenizer), **attention)


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: str,
    settings: TrainSettings,
    seed: int,
    run: Run,
    merge_bases: bool = False,
) -> None:
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if settings.steps:
        run.report_progress("tokenising", 0, settings.steps)
        examples = load_examples(Path(data), tokenizer, settings.append_eos)
        curriculum = Curriculum(settings.curriculum, examples) if settings.curriculum.field else None
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        batches = Batches(examples, settings, seed, pad_id, curriculum)
        _check_lengths(examples, model, data)
        _fit(model, settings, batches, seed, run)
    if isinstance(model, ComposedModelForCausalLM):
        model.config.training = _described(data, settings, seed)
        model.save_pretrained(run.path / "model", merge_bases=merge_bases)
    else:
        model.save_pretrained(run.path / "model")
    tokenizer.save_pretrained(run.path / "model")
    run.finish(
        trainable_parameters=trainable, total_parameters=sum(parameter.numel() for parameter in model.parameters())
    )


def _described(data: str, settings: TrainSettings, seed: int) -> dict[str, Any]:
    """Return what a model card says of a training."""
    shown = ("steps", "batch_size", "batch_tokens", "optimizer", "lr", "schedule", "precision")
    set_ones = {name: value for name in shown if (value := getattr(settings, name))}
    return {"data": Path(data).name, **set_ones, "seed": seed}


def _fit(model: PreTrainedModel, settings: TrainSettings, batches: Batches, seed: int, run: Run) -> None:
    def on_log(row: dict[str, Any]) -> None:
        run.append_jsonl(row)
        remaining = settings.steps - row["step"]
        pace = (row["seconds"] - trainer.seconds_before) / max(row["step"] - batches.start_step, 1)
        run.report_progress(
            "training", row["step"], settings.steps, row["loss"], row["tokens_per_second"], pace * remaining
        )

    folder = run.path / "checkpoints"
    use_cache = getattr(model.config, "use_cache", None)
    trainer = RunTrainer(model, settings, batches, folder, seed, on_log)
    checkpoint = last_complete_checkpoint(folder)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    run.rewind_log(step)
    rows = run.read_jsonl()
    trainer.seconds_before = rows[-1]["seconds"] if rows else 0.0
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if use_cache is not None:
        # The Trainer turns it off in the configuration, and it would be saved so.
        model.config.use_cache = use_cache
    # Take off the autocast that the Trainer put around `forward`.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model.eval()


def _check_lengths(examples: Examples, model: PreTrainedModel, data: str) -> None:
    longest, limit = int(examples.lengths.max()), getattr(text_config(model.config), "max_position_embeddings", None)
    if limit and longest > limit:
        raise UserError(
            f"{data}: the longest example has {longest} tokens, the model's context {limit}; shorten it, or raise "
            "model.max_position_embeddings of a model from scratch"
        )


def _set_up(settings: TrainSettings, seed: int) -> None:
    """Seed everything and set what training needs."""
    quiet_libraries()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("WORLD_SIZE: training runs in one process for now; start it without torchrun")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # Numbers too small to matter otherwise slow optimizers on CPU down.
    torch.set_flush_denormal(True)
    set_seed(seed)


def _sha256(file: str) -> str:
    path = Path(file)
    return sha256_of(path) if path.is_file() else file


def _require(value: object, name: str, option: str) -> None:
    if not value:
        raise UserError(f"{name} is not set; give {option} or {name}=...")
