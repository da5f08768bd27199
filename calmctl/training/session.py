"""One training session, whatever is trained: examples to batches, the Trainer, and the model in the run directory."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from calmctl.errors import UserError
from calmctl.modeling.card import write_card
from calmctl.modeling.checkpoint import save_composed
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.layers import text_config
from calmctl.modeling.sources import quiet_libraries
from calmctl.runs import Run
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import last_complete_checkpoint, replaced_whole
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import load_examples
from calmctl.training.frozen import FrozenBases
from calmctl.training.settings import TrainSettings
from calmctl.training.trainer import RunTrainer


def set_up(settings: TrainSettings, seed: int) -> None:
    """Seed everything and set what training needs."""
    quiet_libraries()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("WORLD_SIZE: training runs in one process for now; start it without torchrun")
    if settings.threads:
        torch.set_num_threads(settings.threads)
    # Numbers too small to matter otherwise slow optimizers on CPU down.
    torch.set_flush_denormal(True)
    set_seed(seed)


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
        UserError: the data cannot be used, or its examples do not fit the model.
        CalmctlError: the training diverged, a frozen base changed, or the disk does not take a checkpoint.
    """
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = FrozenBases(model) if isinstance(model, ComposedModelForCausalLM) else None
    facts: dict[str, Any] = {}
    if settings.steps:
        run.report_progress("tokenising", 0, settings.steps)
        limit = getattr(text_config(model.config), "max_position_embeddings", None)
        examples = load_examples(Path(data), tokenizer, settings, limit)
        facts["examples"] = examples.counts
        curriculum = Curriculum(settings.curriculum, examples) if settings.curriculum.field else None
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        batches = Batches(examples, settings, seed, pad_id, curriculum)
        _fit(model, settings, batches, seed, run, frozen)
    if frozen is not None:
        frozen.check()
    with replaced_whole(run.path / "model") as folder:
        if isinstance(model, ComposedModelForCausalLM) and frozen is not None:
            model.config.training = _described(data, settings, seed)
            save_composed(model, folder, merge_bases=merge_bases, fingerprints=frozen.fingerprints)
            write_card(model, folder, "model")
        else:
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    run.finish(
        trainable_parameters=trainable,
        total_parameters=sum(parameter.numel() for parameter in model.parameters()),
        **facts,
    )


def _described(data: str, settings: TrainSettings, seed: int) -> dict[str, Any]:
    """Return what a model card says of a training."""
    shown = ("steps", "batch_size", "batch_tokens", "optimizer", "lr", "schedule", "precision")
    set_ones = {name: value for name in shown if (value := getattr(settings, name))}
    return {"data": Path(data).name, **set_ones, "seed": seed}


def _fit(
    model: PreTrainedModel,
    settings: TrainSettings,
    batches: Batches,
    seed: int,
    run: Run,
    frozen: FrozenBases | None,
) -> None:
    def on_log(row: dict[str, Any]) -> None:
        # A checkpoint that outlives a power failure needs the rows before it.
        run.append_jsonl(row, durable=row["step"] % settings.save_every == 0)
        remaining = settings.steps - row["step"]
        pace = (row["seconds"] - trainer.seconds_before) / max(row["step"] - batches.start_step, 1)
        run.report_progress(
            "training", row["step"], settings.steps, row["loss"], row["tokens_per_second"], pace * remaining
        )

    folder = run.path / "checkpoints"
    use_cache = getattr(model.config, "use_cache", None)
    trainer = RunTrainer(model, settings, batches, folder, seed, on_log, frozen)
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
