"""A recipe that teaches bridges between two pretrained models within a few hundred steps of short rows.

Streams of pretrained models differ by a factor of hundreds in scale, a few of their dimensions are twenty times as
large as the others, and their first token can be a hundred times as large as the rest. So what bridges read and ask
with is calibrated on the first rows: RMS-normalised, less the mean (the aug's only), and divided by every dimension's
standard deviation, the first token left out. What they add is scaled to a share of the anchor's stream there.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl import ComposedModelForCausalLM
from calmctl.modeling import layers
from calmctl.modeling.segmentation import NEVER
from calmctl.training.settings import TrainSettings

# (aug, anchor): where in the depth of each model a bridge is, the last layer of both included.
DEPTHS = ((0.25, 0.25), (0.5, 0.5), (0.77, 0.77), (1.0, 1.0))
UPDATE_SHARE = 0.3


@dataclass(frozen=True)
class Recipe:
    """How the bridges are trained.

    Attributes:
        tokens: of the anchor in a step, padding included.
        lr: of Muon.
    """

    tokens: int = 400
    lr: float = 0.02
    dtype: torch.dtype = torch.bfloat16

    def settings(self, steps: int) -> TrainSettings:
        """Return the program's settings."""
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
        """Return what the forward pass runs in."""
        return torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32)


@torch.no_grad()
def prepared(model: ComposedModelForCausalLM, batch: dict[str, Any]) -> None:
    """Calibrate the bridges of an untrained composition on a batch."""
    bridges = [bridge for each in model.bridges for bridge in each]
    seen: dict[nn.Module, Tensor] = {}
    handles = [
        part.register_forward_pre_hook(lambda module, args: seen.__setitem__(module, args[0].float()))
        for bridge in bridges
        for part in (bridge.projection, bridge.query)
    ]
    batch = {name: value for name, value in batch.items() if name != "labels"}
    model(**batch, use_cache=False, logits_to_keep=1)
    for handle in handles:
        handle.remove()
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    is_read = batch["aug_tokens"][0][:, 1] != NEVER
    for bridge in bridges:
        asked = seen[bridge.query][:, 1:][mask[:, 1:]]
        scale = UPDATE_SHARE * asked.pow(2).mean(-1).sqrt().median()
        read = seen[bridge.projection][:, 1:][is_read[:, 1:]]
        bridge.query.register_forward_pre_hook(_Calibrated(asked, is_centred=False))
        bridge.projection.register_forward_pre_hook(_Calibrated(read, is_centred=True))
        bridge.output.register_forward_hook(lambda _module, _args, output, scale=scale: output * scale)


class _Calibrated:
    """Normalises what goes into a matrix, by states (n, dim) that were seen."""

    def __init__(self, states: Tensor, is_centred: bool) -> None:
        normed = _rms_normed(states)
        self.mean = normed.mean(0) if is_centred else torch.zeros(())
        self.deviation = normed.std(0).clamp(min=1e-3)

    def __call__(self, module: nn.Module, args: Sequence[Tensor]) -> tuple[Tensor]:
        return (((_rms_normed(args[0].float()) - self.mean) / self.deviation).to(module.weight.dtype),)


def _rms_normed(states: Tensor) -> Tensor:
    return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
