"""The training run: transformers' Trainer with our batches, loss on labelled rows, and checkpoints that resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler
from transformers.trainer_callback import PrinterCallback

from calmctl.files import read_json, write_json, write_text
from calmctl.modeling.checkpoint import WEIGHTS_FILE, load_parameters, save_composed
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.fingerprint import fingerprint
from calmctl.modeling.loss import IGNORED, completion_loss, labelled_rows_only
from calmctl.ranks import current_ranks
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import COMPLETE_MARK, CURRICULUM_FILE
from calmctl.training.layout import keep_whole, replicate, shard, whole_state
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
            `settings.log_every` steps.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: TrainSettings,
        batches: Batches,
        folder: Path,
        seed: int,
        on_log: Callable[[Row], None],
    ) -> None:
        self.settings, self.batches, self.on_log = settings, batches, on_log
        self.ranks = current_ranks()
        self.is_sharded = settings.sharding == "fsdp" and self.ranks.count > 1
        self._fingerprints = self._known_fingerprints(model)
        super().__init__(model=model, args=_arguments(settings, folder, seed), train_dataset=batches.examples)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True
        self.seconds_before = 0.0
        self.meter = Meter()
        self.add_callback(StepLog(self))

    def get_train_dataloader(self) -> Batches:  # type: ignore[override]
        """Return our own batches: they place, shard and resume themselves."""
        return self.batches

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer over trainable parameters only, which from now on lie where they are trained."""
        if self.optimizer is None:
            if self.is_sharded:
                shard(cast(PreTrainedModel, self.model), self.ranks, self.settings.precision)
            self.optimizer = build_optimizer(cast(nn.Module, model if model is not None else self.model), self.settings)
            keep_whole(self.optimizer)
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

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Leave a model that is to be sharded where it is: as a whole it may not fit the device."""
        if not self.is_sharded:
            super()._move_model_to_device(model, device)

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        """Let gradients be averaged over the processes."""
        if self.ranks.count == 1 or isinstance(model, DistributedDataParallel):
            return model
        if not isinstance(model, FSDPModule):
            return replicate(model, self.ranks)
        cast(Any, model)._is_accelerate_prepared = True  # FSDP does it; accelerate need not wrap the model
        return model

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
        with self.accelerator.autocast():
            if isinstance(unwrapped, ComposedModelForCausalLM):
                outputs = model(**inputs, labels=labels, use_cache=False, num_items_in_batch=num_items_in_batch)
                loss, correct = outputs.loss, outputs.correct
            else:
                with labelled_rows_only(unwrapped, labels) as targets:
                    outputs = model(**inputs, use_cache=False)
                loss = completion_loss(outputs.logits, targets, num_items_in_batch)
                correct = (outputs.logits.detach().argmax(-1) == targets)[0]
        if num_items_in_batch is not None:
            loss = loss * self.ranks.count  # the labels are those of all processes, whose gradients are averaged
        self._observe(labels, correct)
        return (loss, outputs) if return_outputs else loss

    def _observe(self, labels: Tensor, correct: Tensor) -> None:
        """Count tokens and whole completions that would have been answered exactly (teacher-forced), everywhere."""
        learned = (labels[:, 1:] != IGNORED).to(correct.device)
        errors = torch.zeros(len(labels), device=correct.device)
        errors.index_add_(0, learned.nonzero()[:, 0], (~correct).float())
        asked = learned.any(1)
        counts = torch.stack([((errors == 0) & asked).sum(), asked.sum()]).tolist()
        tokens, exact, rows = self.ranks.sum([labels.numel(), *counts])
        self.meter.add(int(tokens), exact / max(rows, 1))
        self.batches.observe(self.meter.last_exact_match)

    # Checkpoints: marked when whole; only marked ones are resumed from. The first process writes them, the same
    # whatever the layout; all take part in putting them together.

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.ranks.wait()
        if not self.ranks.is_first:
            return
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.batches.curriculum is not None:
            write_json(folder / CURRICULUM_FILE, self.batches.curriculum.state())
        write_text(folder / COMPLETE_MARK, "")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, whole, from the first process."""
        state = None
        if self.is_sharded and not isinstance(self.model, ComposedModelForCausalLM):
            state = whole_state(cast(nn.Module, self.model), self.ranks)
        if self.ranks.is_first:
            self._save(output_dir, state_dict=state)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if isinstance(self.model, ComposedModelForCausalLM):
            save_composed(self.model, Path(str(output_dir)), fingerprints=self._fingerprints)
        else:
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_sharded and not self.ranks.is_first:
            cast(torch.optim.Optimizer, self.optimizer).state_dict()  # the first process gathers it
        super()._save_optimizer_and_scheduler(output_dir)

    @staticmethod
    def _known_fingerprints(model: PreTrainedModel) -> list[dict[str, Any]] | None:
        """Return what every checkpoint says of frozen bases; once they are sharded it could not be computed."""
        if not isinstance(model, ComposedModelForCausalLM) or not current_ranks().is_first:
            return None
        return [fingerprint(cast(PreTrainedModel, base)) for base in (model.anchor, *model.augs)]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if isinstance(self.model, ComposedModelForCausalLM):
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
        # The model is there already: what is drawn from now on, dropout, differs between processes.
        seed=(seed + current_ranks().index) % 2**32,
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        save_total_limit=2,
        ignore_data_skip=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        # The filter would turn a diverged run's loss into 0; ours stops the run.
        logging_nan_inf_filter=False,
    )
