"""Our settings translated for torch and transformers: optimizer, learning-rate schedule, `TrainingArguments`."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel, TrainingArguments, get_scheduler

from calmctl.processes.ranks import current_ranks
from calmctl.training.settings import TrainSettings

SCHEDULER_NAMES = {
    "warmup_hold_decay": "warmup_stable_decay",
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
}


class MuonWithAdamW(Optimizer):
    """Muon (Jordan et al. 2024) on matrices and AdamW on the rest, as one optimizer.

    AdamW trains embeddings, LM heads, norms and biases: Muon's orthogonal updates suit matrices that map hidden states.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], settings: TrainSettings
    ) -> None:
        matrices, others = list(matrices), list(others)
        self.parts: list[Optimizer] = []
        if matrices:
            self.parts.append(
                Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum)
            )
        if others:
            self.parts.append(AdamW(others, lr=settings.adamw_lr, betas=settings.betas, weight_decay=0.0))
        super().__init__([*matrices, *others], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Expose the parts' own groups, so that a schedule that sets `group["lr"]` reaches them."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with every part."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the parts' states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def build_optimizer(model: nn.Module, settings: TrainSettings) -> Optimizer:
    """Return an optimizer over the trainable parameters of a model."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if settings.optimizer == "adamw":
        return AdamW(trainable.values(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    vocabulary = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    vocabulary |= {id(parameter) for parameter in head.parameters()} if head is not None else set()
    is_matrix = {name: p.ndim == 2 and id(p) not in vocabulary for name, p in trainable.items()}
    return MuonWithAdamW(
        [p for name, p in trainable.items() if is_matrix[name]],
        [p for name, p in trainable.items() if not is_matrix[name]],
        settings,
    )


def build_schedule(settings: TrainSettings, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Return the learning-rate schedule over `steps` steps."""
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


def learned_alike(settings: TrainSettings, before: TrainSettings, step: int) -> bool:
    """Tell whether two trainings of different length have equal learning rates up to a step."""

    def shares(of: TrainSettings) -> Any:
        return build_schedule(of, AdamW([torch.zeros(1)]), of.steps).lr_lambdas[0]

    ours, theirs = shares(settings), shares(before)
    return all(ours(each) == theirs(each) for each in range(step))


def training_arguments(settings: TrainSettings, folder: Path, seed: int, is_validated: bool) -> TrainingArguments:
    """Return the arguments of a Trainer that writes its checkpoints below `folder`."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size // settings.accumulation,
        gradient_accumulation_steps=settings.accumulation,
        max_grad_norm=settings.grad_clip,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        # Weights are already drawn: this seed affects dropout only, so vary it by rank.
        seed=(seed + current_ranks().index) % 2**32,
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        # The Trainer would delete old checkpoints before the new one is on the disk; `rotate` does it afterwards.
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
        # The filter would hide losses that are not finite; DivergenceWatch stops the run instead.
        logging_nan_inf_filter=False,
    )
    # One GPU per process: if the Trainer sees several, it prepares for DataParallel.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
