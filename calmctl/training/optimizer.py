"""Optimizers: AdamW, and Muon for matrices beside AdamW for everything else."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel

from calmctl.training.settings import TrainSettings


class MuonWithAdamW(Optimizer):
    """Muon (Jordan et al. 2024) on matrices and AdamW on the rest, behind one optimizer's interface.

    Embeddings, LM heads, norms and biases are AdamW's: Muon's orthogonal updates suit matrices that map hidden states.
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
