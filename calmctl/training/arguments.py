"""Our settings in the words of transformers: the Trainer's arguments and the learning-rate schedule."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, get_scheduler

from calmctl.processes.ranks import current_ranks
from calmctl.training.settings import TrainSettings

SCHEDULER_NAMES = {
    "warmup_hold_decay": "warmup_stable_decay",
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
}


def build_schedule(settings: TrainSettings, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Return the learning-rate schedule over so many steps."""
    specific: dict[str, Any] = {}
    if settings.schedule == "warmup_hold_decay":
        decay = min(round((1 - settings.hold_share) * steps), steps - settings.warmup_steps)
        specific = {"num_decay_steps": max(decay, 0), "min_lr_ratio": settings.final_lr_share, "decay_type": "linear"}
    return get_scheduler(
        SCHEDULER_NAMES[settings.schedule],
        optimizer,
        settings.warmup_steps,
        steps,
        scheduler_specific_kwargs=specific,
    )


def training_arguments(settings: TrainSettings, folder: Path, seed: int, is_validated: bool) -> TrainingArguments:
    """Return the arguments of a Trainer that writes its checkpoints below a folder."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size // settings.accumulation,
        gradient_accumulation_steps=settings.accumulation,
        max_grad_norm=settings.grad_clip,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        # Weights are already drawn; this seed affects dropout only, so vary it by rank.
        seed=(seed + current_ranks().index) % 2**32,
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        # None are removed by the Trainer, which would do so before the new one is on the disk.
        save_total_limit=None,
        eval_strategy="steps" if is_validated else "no",
        eval_steps=settings.validation_steps,
        metric_for_best_model="eval_loss" if is_validated else None,
        greater_is_better=False,
        restore_callback_states_from_checkpoint=False,
        ignore_data_skip=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        # The filter would turn a diverged run's loss into 0; ours stops the run.
        logging_nan_inf_filter=False,
    )
    # One process trains on one GPU; where it sees several, the Trainer would shape losses for DataParallel.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
