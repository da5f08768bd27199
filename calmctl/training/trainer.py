"""The training run: transformers' Trainer with our batches, loss on labelled rows, and checkpoints that resume."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler
from transformers.trainer_callback import PrinterCallback

from calmctl.errors import UserError
from calmctl.files import read_json, write_json, write_text
from calmctl.modeling.checkpoint import WEIGHTS_FILE, load_parameters, save_composed
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.fingerprint import fingerprint
from calmctl.modeling.loss import completion_loss, labelled_rows_only
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import COMPLETE_MARK, CURRICULUM_FILE
from calmctl.training.cost import flop_counter
from calmctl.training.optimizer import build_optimizer
from calmctl.training.settings import TrainSettings
from calmctl.training.step_log import Meter, Row, StepLog
from calmctl.training.validation import ActOnValidation, Validation, exact_rows

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
            `settings.log_every` steps, and one (step, validation_loss, validation_exact_match, seconds) a validation.
        validation: what to validate on, every `settings.validation_steps` steps and at the end.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: TrainSettings,
        batches: Batches,
        folder: Path,
        seed: int,
        on_log: Callable[[Row], None],
        validation: Validation | None = None,
    ) -> None:
        self.settings, self.batches, self.on_log, self.validation = settings, batches, on_log, validation
        super().__init__(
            model=model,
            args=_arguments(settings, folder, seed, is_validated=validation is not None),
            train_dataset=batches.examples,
            eval_dataset=validation.batches.examples if validation is not None else None,
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True
        self._fingerprints: list[dict[str, Any]] | None = None
        self.meter = Meter()
        self.flops: dict[str, int] | None = None
        self.add_callback(StepLog(self))
        if validation is not None:
            self.add_callback(ActOnValidation(settings))

    def get_train_dataloader(self) -> Batches:  # type: ignore[override]
        """Return our own batches: they place, shard and resume themselves."""
        return self.batches

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer over trainable parameters only."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(cast(nn.Module, model if model is not None else self.model), self.settings)
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

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Take a micro-batch forward and backward, the first one once more beforehand to count its FLOPs."""
        if self.flops is None:
            self.flops = self._count_flops(model, dict(inputs))
        return super().training_step(model, inputs, num_items_in_batch)

    def _count_flops(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, int]:
        # Counting may replace operations by their parts, which round otherwise: nothing of this pass is kept.
        model.train()
        inputs = cast(dict[str, Any], self._prepare_inputs(inputs))
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), flop_counter() as counter:
            with self.compute_loss_context_manager():
                loss = self._answer(model, inputs, inputs.pop("labels"), None)[0]
            loss.backward()
        model.zero_grad()
        return {"flops": counter.get_total_flops(), "tokens": inputs["input_ids"].numel()}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss on completions; only their positions reach the LM head."""
        labels = inputs.pop("labels")
        loss, correct, outputs = self._answer(model, inputs, labels, num_items_in_batch)
        self._observe(labels, correct)
        return (loss, outputs) if return_outputs else loss

    def _answer(
        self, model: nn.Module, inputs: dict[str, Any], labels: Tensor, num_items: Tensor | int | None
    ) -> tuple[Tensor, Tensor, Any]:
        """Return the loss, which labels (rows,) were the most likely tokens, and the model's output."""
        # `self.model` is what `model` may wrap; asking accelerate to unwrap it takes a millisecond a step.
        if isinstance(self.model, ComposedModelForCausalLM):
            outputs = model(**inputs, labels=labels, use_cache=False, num_items_in_batch=num_items)
            return outputs.loss, outputs.correct, outputs
        with labelled_rows_only(cast(PreTrainedModel, self.model), labels) as targets:
            outputs = model(**inputs, use_cache=False)
        correct = (outputs.logits.detach().argmax(-1) == targets)[0]
        return completion_loss(outputs.logits, targets, num_items), correct, outputs

    def _observe(self, labels: Tensor, correct: Tensor) -> None:
        """Count tokens and whole completions that would have been answered exactly (teacher-forced)."""
        exact_match = exact_rows(labels, correct).float().mean()
        self.meter.add(labels.numel(), exact_match)
        if self.batches.curriculum is not None:
            self.batches.observe(exact_match.item())

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the gradients of what is trained; frozen parameters, most of them all, are not walked over."""
        trained = [parameter for group in cast(Any, self.optimizer).param_groups for parameter in group["params"]]
        return self.accelerator.clip_grad_norm_(trained, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: `cost` measures them, and the Trainer's estimate walks over all modules in every step."""
        return 0

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Validate: score the validation examples, log them as a row, and tell the callbacks."""
        if self.validation is None:
            raise ValueError("there is nothing to validate on")

        def answer(inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
            with self.compute_loss_context_manager():
                return self._answer(cast(nn.Module, self.model), inputs, labels, 1)[:2]

        with self.meter.paused():
            score = self.validation.score(cast(PreTrainedModel, self.model), answer, self.args.device)
        if not math.isfinite(score.loss):
            raise UserError(f"the validation loss is {score.loss} at step {self.state.global_step}; lower train.lr")
        row = {"step": self.state.global_step, "validation_loss": score.loss, "seconds": self.meter.seconds_of_run()}
        self.on_log(row | {"validation_exact_match": round(score.exact_match, 4)})
        metrics = {f"{metric_key_prefix}_loss": score.loss, f"{metric_key_prefix}_exact_match": score.exact_match}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # Checkpoints: marked when whole; only marked ones are resumed from.

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.batches.curriculum is not None:
            write_json(folder / CURRICULUM_FILE, self.batches.curriculum.state())
        write_text(folder / COMPLETE_MARK, "")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not isinstance(self.model, ComposedModelForCausalLM):
            super()._save(output_dir, state_dict)
            return
        if self._fingerprints is None:
            self._fingerprints = [fingerprint(cast(PreTrainedModel, m)) for m in (self.model.anchor, *self.model.augs)]
        save_composed(self.model, Path(str(output_dir)), fingerprints=self._fingerprints)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if isinstance(self.model, ComposedModelForCausalLM):
            load_parameters(self.model, Path(resume_from_checkpoint) / WEIGHTS_FILE)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.batches.curriculum is not None:
            self.batches.curriculum.restore(read_json(Path(resume_from_checkpoint) / CURRICULUM_FILE))


def _arguments(settings: TrainSettings, folder: Path, seed: int, is_validated: bool) -> TrainingArguments:
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
        save_total_limit=2,
        eval_strategy="steps" if is_validated else "no",
        eval_steps=settings.validation_steps,
        metric_for_best_model="eval_loss" if is_validated else None,
        greater_is_better=False,
        ignore_data_skip=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        # The filter would turn a diverged run's loss into 0; ours stops the run.
        logging_nan_inf_filter=False,
    )
