"""Settings that train bridges between two pretrained models within a few hundred steps on short rows.

The caller calibrates the bridges before training (`ComposedModelForCausalLM.calibrate`).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from calmctl.modeling import layers
from calmctl.training.settings import TrainSettings

# Connections as relative depths (aug, anchor); 1.0 is the last layer.
DEPTHS = ((0.25, 0.25), (0.5, 0.5), (0.77, 0.77), (1.0, 1.0))


@dataclass(frozen=True)
class Recipe:
    """How the bridges are trained.

    Attributes:
        tokens: anchor tokens per step, padding included.
        lr: learning rate of Muon.
    """

    tokens: int = 400
    lr: float = 0.02
    dtype: torch.dtype = torch.bfloat16

    def settings(self, steps: int) -> TrainSettings:
        """Return the training settings."""
        return TrainSettings(
            steps=steps, batch_tokens=self.tokens, optimizer="muon", lr=self.lr, weight_decay=0.0, hold_share=0.6,
            final_lr_share=0.05, warmup_steps=min(10, steps // 4), grad_clip=1.0, on_long_example="drop",
        )  # fmt: skip

    def connections(self, anchor: PreTrainedModel, aug: PreTrainedModel) -> list[list[int]]:
        """Return [aug_layer, anchor_layer] pairs."""
        counts = [layers.num_layers(model.config) for model in (aug, anchor)]
        pairs = (
            tuple(round(share * count) - 1 for share, count in zip(depths, counts, strict=True)) for depths in DEPTHS
        )
        return [list(pair) for pair in dict.fromkeys(pairs)]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for the forward pass."""
        return torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32)
