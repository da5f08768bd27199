"""One training session for any model: batch the examples, run the Trainer, save the model in the run directory."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from calmctl.modeling.stored.card import CARD_FILE, write_card
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.stored.stored_tokenizer import store_tokenizer
from calmctl.processes.cpu import set_up_cpu
from calmctl.processes.parent import Interrupted, putting_off_the_end
from calmctl.processes.ranks import current_ranks
from calmctl.runs.record import METRICS_FILE
from calmctl.runs.run import Run
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import damage, last_complete_checkpoint, replaced_whole
from calmctl.training.configs import TrainingConfig
from calmctl.training.cost import num_trainable, training_cost
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import Examples
from calmctl.training.interruption import all_asked_to_end, owes_validation
from calmctl.training.layout import reassemble
from calmctl.training.packing import check_packing
from calmctl.training.safeguards import FrozenBases
from calmctl.training.settings import TrainSettings
from calmctl.training.state_store import kept
from calmctl.training.step_log import StepProgress, trackers
from calmctl.training.trainer import RunTrainer
from calmctl.training.validation import Validation, out_of_patience, state_of
from data_builders.row_sources import private_name

_LOGGER = logging.getLogger(__name__)


def set_up(settings: TrainSettings, seed: int) -> None:
    """Set CPU threads, flush denormal numbers to zero, and seed all libraries."""
    set_up_cpu(settings.threads)
    # Denormal numbers slow optimizers on CPUs down.
    torch.set_flush_denormal(True)
    set_seed(seed)


def train_into(
    run: Run,
    config: TrainingConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples | None,
    held_out: Examples | None,
    *,
    merge_bases: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Train the parameters of a model that require gradients, save model and tokenizer, and finish the run.

    Args:
        examples: training examples; None = do not train. `held_out` are the validation examples.
        merge_bases: save the bases too, if the model is stored in parts.
        facts: further entries for `run.json`.

    Raises:
        UserError: the model cannot read packed rows.
        CalmctlError: the training diverged, a frozen base changed, or a checkpoint cannot be written.
    """
    ranks, settings, seed = current_ranks(), config.settings, config.seed
    trainable = num_trainable(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    frozen = FrozenBases(model) if isinstance(model, PartsModel) and ranks.is_first else None
    known, flops = dict(facts or {}), None
    if examples is not None:
        if settings.packing:
            check_packing(model)
        known |= {"examples": examples.counts, "steps": settings.steps}
        curriculum = Curriculum(settings.curriculum, examples) if settings.curriculum.field else None
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        batches = Batches(examples, settings, seed, pad_id, curriculum)
        known["passes_over_the_data"] = round(batches.passes, 2)
        validator = Validation(Batches(held_out, settings, seed, pad_id)) if held_out is not None else None
        with kept(model, settings, batches, validator, run) as facts_of_states:
            flops = fit(model, settings, batches, validator, seed, run, frozen)
        known |= facts_of_states
    if ranks.is_first:
        described = _described(config, run.facts.get("extended", []))
        _save(model, tokenizer, run.path / "model", frozen, described, merge_bases)
        known["cost"] = training_cost(trainable, run.read_jsonl(), flops, run.path / "model")
    run.finish(trainable_parameters=trainable, total_parameters=total, processes=ranks.count, **known)


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    frozen: FrozenBases | None,
    described: dict[str, Any],
    merge_bases: bool,
) -> None:
    """Write model and tokenizer atomically; write nothing if a frozen base has changed."""
    if frozen is not None:
        frozen.check()
    with replaced_whole(folder) as unfinished:
        if isinstance(model, PartsModel) and frozen is not None:
            model.config.training = described
            model.save_pretrained(unfinished, merge_bases=merge_bases, fingerprints=frozen.fingerprints)
            if (unfinished / CARD_FILE).is_file():  # saving named it after the temporary folder
                write_card(model, unfinished, folder.resolve().parent.name)
        else:
            model.save_pretrained(unfinished)
        store_tokenizer(tokenizer, unfinished)


def _described(config: TrainingConfig, extended: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the facts of a training for the model card.

    Args:
        extended: what its settings were before it was extended, each time.
    """
    shown = ("steps", "batch_size", "batch_tokens", "optimizer", "lr", "schedule", "precision")
    set_ones = {name: value for name in shown if (value := getattr(config.settings, name))}
    if config.init_from:
        set_ones["init from"] = Path(config.init_from).name
    if extended:
        before = (f"{value:g} {name.rpartition('.')[2]}" for each in extended for name, value in each.items())
        set_ones["extended from"] = ", ".join(before)
    return {"data": ", ".join(map(private_name, config.datasets)), **set_ones, "seed": config.seed}


def fit(
    model: PreTrainedModel,
    settings: TrainSettings,
    batches: Batches,
    validation: Validation | None,
    seed: int,
    run: Run,
    frozen: FrozenBases | None = None,
) -> dict[str, int] | None:
    """Train a model in place, from the last checkpoint of the run if there is one.

    Afterwards the first process holds the whole trained model, sharded or not.

    Returns:
        The FLOPs and the tokens of one micro-batch; None if they were not measured.

    Raises:
        Interrupted: the process was told to end; a checkpoint of the current step has been saved.
    """

    def on_log(row: dict[str, Any]) -> None:
        # The rows before a checkpoint must reach the disk before it does.
        run.append_jsonl(row, durable=trainer.control.should_save or "validation_loss" in row)
        progress.add(row)

    folder, ranks = run.path / "checkpoints", current_ranks()
    use_cache = getattr(model.config, "use_cache", None)
    trainer = RunTrainer(model, settings, batches, folder, seed, on_log, validation, frozen)
    progress = StepProgress(run, trainer.meter, batches, settings)
    trainer.add_callback(progress)
    _train(trainer, _checkpoint_to_resume(trainer, run), run)
    if use_cache is not None:
        # The Trainer sets it to False in the configuration, which is saved with the model.
        model.config.use_cache = use_cache
    # Remove the autocast that the Trainer put around `forward`.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if trainer.is_sharded:
        reassemble(model, ranks)
    best = trainer.state.best_global_step
    if ranks.is_first:
        step = trainer.state.global_step
        if settings.keep_best and best and best != step and _load_best(trainer, folder / f"checkpoint-{best}"):
            step = best
        if validation is not None:
            _write_validation(run, step, best, len(validation))
    model.eval()
    return trainer.flops


def _checkpoint_to_resume(trainer: RunTrainer, run: Run) -> Path | None:
    """Return the run's last complete checkpoint, if any; set the log and the trainer's counts back to its step."""
    ranks, settings = trainer.ranks, trainer.settings
    folder = run.path / "checkpoints"
    # The search removes or renames broken checkpoints, so only the first process runs it.
    checkpoint = ranks.from_first(last_complete_checkpoint(folder) if ranks.is_first else None)
    step = _step_of(checkpoint)
    is_validated = trainer.validation is not None
    owes = checkpoint is not None and is_validated and owes_validation(state_of(checkpoint), settings)
    begins = checkpoint is None and is_validated and isinstance(trainer.model, PartsModel)
    trainer.owes_validation, trainer.args.eval_on_start = owes, owes or begins
    run.rewind_log(step, without="validation_loss" if owes or begins else "")
    rows = run.read_jsonl()
    trainer.loss_alone = next((row["anchor_loss"] for row in rows if "anchor_loss" in row), None)
    trainer.meter.seconds_before = rows[-1]["seconds"] if rows else 0.0
    if checkpoint and ranks.is_first:
        print(f"{run.path}: goes on after step {step} of {settings.steps}, from {checkpoint}", file=sys.stderr)
    return checkpoint


def _train(trainer: RunTrainer, checkpoint: Path | None, run: Run) -> None:
    """Take the steps that are left.

    Raises:
        Interrupted: the process was told to end; a checkpoint of the current step has been saved.
    """
    settings, ranks = trainer.settings, trainer.ranks
    if checkpoint and not trainer.owes_validation and out_of_patience(state_of(checkpoint), settings):
        # The training had already stopped early; the Trainer would continue it.
        trainer.state = state_of(checkpoint)
        trainer._load_from_checkpoint(str(checkpoint))
        return
    with trackers(settings.report_to if ranks.is_first else (), run.path, _step_of(checkpoint)) as callbacks:
        for callback in callbacks:
            trainer.add_callback(callback)
        with putting_off_the_end():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            if trainer.is_interrupted or all_asked_to_end(ranks):
                raise Interrupted


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _load_best(trainer: RunTrainer, checkpoint: Path) -> bool:
    """Load the weights of the best checkpoint; if it is damaged, keep the last weights and return False."""
    if reason := damage(checkpoint):
        _LOGGER.warning("%s, the best checkpoint, is lost (%s): the last weights are saved instead", checkpoint, reason)
        return False
    trainer._load_from_checkpoint(str(checkpoint))
    return True


def _write_validation(run: Run, step: int, best: int | None, count: int) -> None:
    """Write `metrics.json`: the validation scores of the saved model, whose weights are those of `step`."""
    rows = {row["step"]: row for row in run.read_jsonl() if "validation_loss" in row}
    saved = rows[step]
    metrics = {name: saved[name] for name in ("validation_loss", "validation_exact_match")}
    if best:
        metrics["best_validation_loss"] = rows[best]["validation_loss"]
    if 0 in rows:
        metrics["start_validation_loss"], metrics["anchor_loss"] = (
            rows[0][name] for name in ("validation_loss", "anchor_loss")
        )
    metrics["last_validation_loss"] = rows[max(rows)]["validation_loss"]
    run.write_json(METRICS_FILE, {"metrics": metrics, "n": count, "step": step, "best_step": best})
