"""The training run: transformers' Trainer with our batches, loss on labelled rows, and checkpoints that resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler
from transformers.trainer_callback import PrinterCallback

from calmctl.files import read_json, write_json
from calmctl.modeling.checkpoint import WEIGHTS_FILE, load_parameters, save_composed
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.loss import IGNORED, completion_loss, labelled_rows_only
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import CURRICULUM_FILE, rotate, seal, written_or_removed
from calmctl.training.divergence import DivergenceWatch
from calmctl.training.frozen import FrozenBases, check_optimizer
from calmctl.training.optimizer import build_optimizer
from calmctl.training.settings import TrainSettings
from calmctl.training.step_log import Meter, Row, StepLog

SCHEDULER_NAMES = {
    "warmup_hold_decay": "warmup_stable_decay",
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
}


class RunTrainer(Trainer):
    """A Trainer for any causal language model, plain or composed.

    Args:
        on_log: receives a row (step, loss, learning_rate, tokens_per_second, seconds, exact_match, ...) every
            `settings.log_every` steps and with every checkpoint.
        frozen: the bases of a composed model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: TrainSettings,
        batches: Batches,
        folder: Path,
        seed: int,
        on_log: Callable[[Row], None],
        frozen: FrozenBases | None = None,
    ) -> None:
        self.settings, self.batches, self.on_log, self.frozen = settings, batches, on_log, frozen
        super().__init__(model=model, args=_arguments(settings, folder, seed), train_dataset=batches.examples)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True
        self.seconds_before = 0.0
        self.meter, self.divergence = Meter(), DivergenceWatch()
        self.add_callback(StepLog(self))

    def get_train_dataloader(self) -> Batches:  # type: ignore[override]
        """Return our own batches: they place, shard and resume themselves."""
        return self.batches

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer over trainable parameters only."""
        if self.optimizer is None:
            trained = cast(nn.Module, model if model is not None else self.model)
            self.optimizer = build_optimizer(trained, self.settings)
            check_optimizer(self.optimizer, trained)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Build the learning-rate schedule from transformers' own."""
        settings = self.settings
        specific: dict[str, Any] = {}
        if settings.schedule == "warmup_hold_decay":
            decay = min(
                round((1 - settings.hold_share) * num_training_steps), num_training_steps - settings.warmup_steps
            )
            specific = {
                "num_decay_steps": max(decay, 0),
                "min_lr_ratio": settings.final_lr_share,
                "decay_type": "linear",
            }
        if self.lr_scheduler is None:
            self.lr_scheduler = get_scheduler(
                SCHEDULER_NAMES[settings.schedule],
                cast(Any, optimizer if optimizer is not None else self.optimizer),
                settings.warmup_steps,
                num_training_steps,
                scheduler_specific_kwargs=specific,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss on completions; only their positions reach the LM head."""
        labels = inputs.pop("labels")
        unwrapped = self.accelerator.unwrap_model(model)
        if isinstance(unwrapped, ComposedModelForCausalLM):
            outputs = model(**inputs, labels=labels, use_cache=False, num_items_in_batch=num_items_in_batch)
            loss, correct = outputs.loss, outputs.correct
        else:
            with labelled_rows_only(unwrapped, labels) as targets:
                outputs = model(**inputs, use_cache=False)
            loss = completion_loss(outputs.logits, targets, num_items_in_batch)
            correct = (outputs.logits.detach().argmax(-1) == targets)[0]
        if model.training:
            self.divergence.add_loss(loss)
            self._observe(labels, correct)
        return (loss, outputs) if return_outputs else loss

    def _observe(self, labels: Tensor, correct: Tensor) -> None:
        """Count tokens and whole completions that would have been answered exactly (teacher-forced)."""
        example = (labels[:, 1:] != IGNORED).nonzero()[:, 0].to(correct.device)
        errors = torch.zeros(len(labels), device=correct.device).index_add_(0, example, (~correct).float())
        self.meter.add(labels.numel(), (errors == 0).float().mean().item())
        self.batches.observe(self.meter.last_exact_match)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.divergence.add_gradient_norm(norm)
        return norm

    # Checkpoints: sealed when whole; older ones go only then, and only sealed ones are resumed from.

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.divergence.check_parameters(parameter for parameter in model.parameters() if parameter.requires_grad)
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with written_or_removed(folder):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                if self.batches.curriculum is not None:
                    write_json(folder / CURRICULUM_FILE, self.batches.curriculum.state())
                seal(folder)
        if self.args.should_save:
            rotate(folder.parent, self.state.best_model_checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if isinstance(self.model, ComposedModelForCausalLM) and self.frozen is not None:
            save_composed(self.model, Path(str(output_dir)), fingerprints=self.frozen.fingerprints)
        else:
            super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if isinstance(self.model, ComposedModelForCausalLM) and self.frozen is not None:
            bases = read_json(Path(resume_from_checkpoint) / "config.json")["bases"]
            self.frozen.check_same_as([base["fingerprint"] for base in bases])
            load_parameters(self.model, Path(resume_from_checkpoint) / WEIGHTS_FILE)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.batches.curriculum is not None:
            self.batches.curriculum.restore(read_json(Path(resume_from_checkpoint) / CURRICULUM_FILE))


def _arguments(settings: TrainSettings, folder: Path, seed: int) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size // settings.accumulation,
        gradient_accumulation_steps=settings.accumulation,
        max_grad_norm=settings.grad_clip,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        use_cpu=not cuda,
        seed=seed,
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        # None are removed by the Trainer, which would do so before the new one is on the disk.
        save_total_limit=None,
        ignore_data_skip=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        # The filter would turn a diverged run's loss into 0; ours stops the run.
        logging_nan_inf_filter=False,
    )
