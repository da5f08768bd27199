"""RunTrainer: transformers' Trainer with our batches, a loss on labelled positions only, and resumable checkpoints."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel
from transformers.trainer_callback import PrinterCallback

from calmctl.errors import CalmctlError
from calmctl.modeling.loss import IGNORED, completion_loss, labelled_rows_only
from calmctl.modeling.stored.parts import PartsModel
from calmctl.processes.parent import Interrupted
from calmctl.processes.ranks import current_ranks
from calmctl.training.batches import Batches
from calmctl.training.cost import flop_counter
from calmctl.training.interruption import SaveAndStop
from calmctl.training.layout import keep_whole, replicate, shard
from calmctl.training.optimizer import build_optimizer, build_schedule, training_arguments
from calmctl.training.resumable_trainer import ResumableTrainer
from calmctl.training.safeguards import DivergenceWatch, FrozenBases, check_optimizer
from calmctl.training.settings import TrainSettings
from calmctl.training.step_log import Meter, Row, StepLog
from calmctl.training.validation import ActOnValidation, Validation, exact_rows, stays_worse

# The batch entries that every model takes; the others (`aug_tokens`, `kept_states`) are for composed models.
_READ_BY_ALL = ("input_ids", "attention_mask", "position_ids")


class RunTrainer(ResumableTrainer):
    """A Trainer for any causal language model, plain or composed, in one process or several.

    Args:
        on_log: receives a log row (step, loss, learning_rate, tokens_per_second, seconds, exact_match, ...) every
            `settings.log_every` steps and at every checkpoint, and one (step, validation_loss,
            validation_exact_match, validation_bits_per_byte, seconds) at every validation.
        validation: runs every `settings.validation_steps` steps and at the end.
        frozen: the bases of a model that is stored in parts; in the first process only.

    Attributes:
        owes_validation: the run was interrupted before the validation of the checkpoint's step; validate first.
        loss_alone: validation loss of the anchor without bridges or adapters; None if unknown.
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
        frozen: FrozenBases | None = None,
    ) -> None:
        self.settings, self.batches, self.on_log = settings, batches, on_log
        self.validation, self.frozen = validation, frozen
        self.ranks = current_ranks()
        self.is_sharded = settings.sharding == "fsdp" and self.ranks.count > 1
        super().__init__(
            model=model,
            args=training_arguments(settings, folder, seed, is_validated=validation is not None),
            train_dataset=batches.examples,
            eval_dataset=validation.batches.examples if validation is not None else None,
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True
        self.numbers = f"{settings.precision}, weights in {str(model.dtype).removeprefix('torch.')}"
        self.meter, self.divergence = Meter(), DivergenceWatch(self.ranks, self.numbers)
        self.flops: dict[str, int] | None = None
        self.owes_validation = False
        self.loss_alone: float | None = None
        self.add_callback(StepLog(self.meter, batches, self.divergence, self.ranks, on_log))
        if validation is not None:
            self.add_callback(ActOnValidation(settings))
        self._save_and_stop = SaveAndStop(self.ranks)
        self.add_callback(self._save_and_stop)

    @property
    def is_interrupted(self) -> bool:
        """Return whether the training stopped early because the process was told to end."""
        return self._save_and_stop.is_interrupted

    def get_train_dataloader(self) -> Batches:  # type: ignore[override]
        """Return our own batches, which split themselves over ranks and resume themselves."""
        return self.batches

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Shard the model if asked to, then build the optimizer over its trainable parameters."""
        if self.optimizer is None:
            if self.is_sharded:
                shard(cast(PreTrainedModel, self.model), self.ranks, self.settings.precision)
            trained = cast(nn.Module, model if model is not None else self.model)
            self.optimizer = build_optimizer(trained, self.settings)
            check_optimizer(self.optimizer, trained)
            keep_whole(self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Build the learning-rate schedule (see `build_schedule`)."""
        if self.lr_scheduler is None:
            optimizer = cast(Any, optimizer if optimizer is not None else self.optimizer)
            self.lr_scheduler = build_schedule(self.settings, optimizer, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Leave a model that will be sharded where it is: unsharded, it may not fit on the device."""
        if not self.is_sharded:
            super()._move_model_to_device(model, device)

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        """Wrap the model in DDP if there are several processes and it is not sharded."""
        if self.ranks.count == 1 or isinstance(model, DistributedDataParallel):
            return model
        if not isinstance(model, FSDPModule):
            return replicate(model, self.ranks)
        cast(Any, model)._is_accelerate_prepared = True  # FSDP averages gradients: no wrapping by accelerate
        return model

    # Steps.

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run a micro-batch forward and backward; run the first one an extra time beforehand to count its FLOPs."""
        if self.flops is None and not self.is_sharded:
            self.flops = self._count_flops(dict(inputs))
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.meter.add_loss(loss)
        return loss

    def _count_flops(self, inputs: dict[str, Any]) -> dict[str, int]:
        # Under the counter, operations may be decomposed and round differently: keep nothing of this pass.
        model = cast(nn.Module, self.model).train()
        inputs.pop("kept_states", None)  # report the cost of a step without this shortcut
        inputs = cast(dict[str, Any], self._prepare_inputs(inputs))
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), flop_counter() as counter:
            self._answer(model, inputs, inputs.pop("labels"), None)[0].backward()
        model.zero_grad()
        return {"flops": counter.get_total_flops(), "tokens": inputs["input_ids"].numel()}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss on the labelled positions; no others reach the LM head."""
        labels = inputs.pop("labels")
        loss, correct, outputs = self._answer(model, inputs, labels, num_items_in_batch)
        self.divergence.add_loss(loss)
        self._observe(labels, correct)
        if num_items_in_batch is not None:
            loss = loss * self.ranks.count  # num_items_in_batch covers all ranks, but gradients are averaged
        return (loss, outputs) if return_outputs else loss

    def _answer(
        self, model: nn.Module, inputs: dict[str, Any], labels: Tensor, num_items: Tensor | int | None
    ) -> tuple[Tensor, Tensor, Any]:
        """Return the loss, the mask (labels,) of labels that were the most likely token, and the model's output."""
        # `self.model` is `model` unwrapped; having accelerate unwrap it would take a millisecond per step.
        with self.accelerator.autocast():
            if isinstance(self.model, PartsModel):
                outputs = model(**inputs, labels=labels, use_cache=False, num_items_in_batch=num_items)
                return outputs.loss, outputs.correct, outputs
            return _plain_answer(model, cast(PreTrainedModel, self.model), inputs, labels, num_items)

    def _observe(self, labels: Tensor, correct: Tensor) -> None:
        """Count tokens and exactly predicted completions (teacher-forced); tell the curriculum the exact match."""
        exact, rows = exact_rows(labels, correct).sum(), (labels[:, 1:] != IGNORED).any(1).sum().to(correct.device)
        self.meter.add(labels.numel(), exact, rows)
        if self.batches.curriculum is not None:
            exact_everywhere, rows_everywhere = self.ranks.sum([exact.item(), rows.item()])
            self.batches.observe(exact_everywhere / max(rows_everywhere, 1))

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the gradients of the trained parameters, without a walk over the (far more numerous) frozen ones."""
        trained = [parameter for group in cast(Any, self.optimizer).param_groups for parameter in group["params"]]
        return self.accelerator.clip_grad_norm_(trained, self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.divergence.add_gradient_norm(norm)
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: FLOPs are measured (see `cost`), and the Trainer's estimate walks over all modules every step."""
        return 0

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Score the validation examples, log a row, and call the callbacks.

        Before the first step of bridges or adapters, also score the anchor alone.

        Raises:
            CalmctlError: the loss is not finite, or stays worse than that of the anchor alone.
            Interrupted: the process was told to end; a checkpoint of the current step has been saved.
        """
        if self.validation is None:
            raise ValueError("there is nothing to validate on")

        def answer(inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
            return self._answer(cast(nn.Module, self.model), inputs, labels, 1)[:2]

        begins = self.state.global_step == 0 and isinstance(self.model, PartsModel)
        with self.meter.paused():
            try:
                if begins:
                    self.loss_alone = self._score_base()
                score = self.validation.score(cast(PreTrainedModel, self.model), answer, self.args.device)
            except Interrupted:
                if self._saved_step != self.state.global_step:
                    self._save_checkpoint(cast(nn.Module, self.model), None)
                raise
        if not math.isfinite(score.loss):
            raise CalmctlError(
                f"step {self.state.global_step}: the validation loss is {score.loss}, computed in {self.numbers}; "
                "lower train.lr, and start with another --out"
            )
        row = {"step": self.state.global_step, "validation_loss": score.loss, "seconds": self.meter.seconds_of_run()}
        row |= {"validation_exact_match": round(score.exact_match, 4)}
        if score.bits_per_byte is not None:
            row["validation_bits_per_byte"] = score.bits_per_byte
        self.on_log(row | {"anchor_loss": self.loss_alone} if begins else row)
        metrics = {f"{metric_key_prefix}_loss": score.loss, f"{metric_key_prefix}_exact_match": score.exact_match}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.owes_validation:
            self._catch_up(metrics)
        self._check_not_worse()
        return metrics

    def _score_base(self) -> float:
        """Return the validation loss of the anchor alone."""
        anchor = cast(PartsModel, self.model).anchor

        def answer(inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
            known: dict[str, Any] = {name: inputs[name] for name in _READ_BY_ALL if name in inputs}
            with self.accelerator.autocast():
                return _plain_answer(anchor, anchor, known, labels, 1)[:2]

        return cast(Validation, self.validation).score(anchor, answer, self.args.device).loss

    def _check_not_worse(self) -> None:
        found = {row["step"]: row["eval_loss"] for row in self.state.log_history if "eval_loss" in row}
        alone, start = self.loss_alone, found.pop(0, None)
        losses = list(found.values())
        if alone is None or start is None or not self.settings.stop_when_worse:
            return
        if stays_worse(losses, alone, start):
            raise CalmctlError(
                f"step {self.state.global_step}: the validation loss is {losses[-1]:.4g} and does not come back to the "
                f"{alone:.4g} of the anchor alone; try a lower train.lr or more train.warmup_steps with another --out "
                "(train.stop_when_worse=false goes on all the same)"
            )

    def _catch_up(self, metrics: dict[str, float]) -> None:
        """Update the best metric and stop if due, which the Trainer does not do after a validation on start."""
        self.owes_validation = self.control.should_save = False  # this step's checkpoint exists
        if self.state.global_step:  # an untrained model does not count as the best
            self._determine_best_metric(metrics, None)
        if self.control.should_training_stop:
            self.batches.start_step = self.settings.steps


def _plain_answer(
    model: nn.Module, unwrapped: PreTrainedModel, inputs: dict[str, Any], labels: Tensor, num_items: Tensor | int | None
) -> tuple[Tensor, Tensor, Any]:
    """Return the same as `RunTrainer._answer`, for a plain transformers model."""
    with labelled_rows_only(unwrapped, labels) as targets:
        outputs = model(**inputs, use_cache=False)
    correct = (outputs.logits.detach().argmax(-1) == targets)[0]
    return completion_loss(outputs.logits, targets, num_items), correct, outputs
