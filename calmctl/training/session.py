"""One training session, whatever is trained: examples to batches, the Trainer, and the model in the run directory."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.layers import text_config
from calmctl.modeling.sources import quiet_libraries
from calmctl.ranks import current_ranks
from calmctl.runs import Run
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import last_complete_checkpoint
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import Examples, load_examples
from calmctl.training.layout import reassemble
from calmctl.training.settings import TrainSettings
from calmctl.training.trainer import RunTrainer


def set_up(settings: TrainSettings, seed: int) -> None:
    """Seed everything and set what training needs.

    Raises:
        UserError: the settings do not go with each other or with the number of processes.
    """
    quiet_libraries()
    _check_processes(settings, current_ranks().count)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # Numbers too small to matter otherwise slow optimizers on CPU down.
    torch.set_flush_denormal(True)
    set_seed(seed)


def _check_processes(settings: TrainSettings, count: int) -> None:
    """Refuse what several processes cannot share."""
    if not settings.batch_tokens and settings.batch_size % (settings.accumulation * count):
        raise UserError(
            f"train.batch_size={settings.batch_size} must be a multiple of train.accumulation={settings.accumulation} "
            f"times {count} processes; change one of them"
        )
    if settings.sharding != "none" and settings.precision == "fp16":
        raise UserError(f"train.precision=fp16 does not go with train.sharding={settings.sharding}; use bf16")


def train_into(
    run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: str,
    settings: TrainSettings,
    seed: int,
    *,
    merge_bases: bool = False,
) -> None:
    """Train the parameters of a model that require gradients, save model and tokenizer, and finish the run.

    Raises:
        UserError: the data cannot be used, its examples do not fit the model, or the loss is not finite.
    """
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if settings.steps:
        run.report_progress("tokenising", 0, settings.steps)
        examples = load_examples(Path(data), tokenizer, settings.append_eos)
        curriculum = Curriculum(settings.curriculum, examples) if settings.curriculum.field else None
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        batches = Batches(examples, settings, seed, pad_id, curriculum)
        _check_lengths(examples, model, data)
        _fit(model, settings, batches, seed, run)
    if current_ranks().is_first:
        _save(run, model, tokenizer, data, settings, seed, merge_bases)
    run.finish(
        trainable_parameters=trainable,
        total_parameters=sum(parameter.numel() for parameter in model.parameters()),
        processes=current_ranks().count,
    )


def _save(
    run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: str,
    settings: TrainSettings,
    seed: int,
    merge_bases: bool,
) -> None:
    if isinstance(model, ComposedModelForCausalLM):
        model.config.training = _described(data, settings, seed)
        model.save_pretrained(run.path / "model", merge_bases=merge_bases)
    else:
        model.save_pretrained(run.path / "model")
    tokenizer.save_pretrained(run.path / "model")


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
    if trainer.is_sharded:
        reassemble(model, trainer.ranks)
    model.eval()


def _check_lengths(examples: Examples, model: PreTrainedModel, data: str) -> None:
    longest, limit = int(examples.lengths.max()), getattr(text_config(model.config), "max_position_embeddings", None)
    if limit and longest > limit:
        raise UserError(
            f"{data}: the longest example has {longest} tokens, the model's context {limit}; shorten it, or raise "
            "model.max_position_embeddings of a model from scratch"
        )
