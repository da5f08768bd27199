"""Plans: the size and cost of a training, computed from shapes without loading or allocating any weights.

`--dry-run` of a command shows the plan of its training; that of an experiment adds up the plans of its stages.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch
from transformers import PreTrainedModel

from calmctl.config import to_dict
from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bases.public_shapes import Shape
from calmctl.modeling.bases.sources import without_weights
from calmctl.modeling.bridge import Bridge
from calmctl.modeling.configuration import declared_context
from calmctl.modeling.connections import resolve_connections
from calmctl.training.configs import ComposeConfig, TrainConfig, TrainingConfig
from calmctl.training.cost import EAGER, FUSED, CompositionFlops, DecoderFlops
from calmctl.training.settings import TrainSettings
from calmctl.units import human_bytes

BYTES_PER_FLOAT = 4
# Copies of the trained parameters that the optimizer keeps: two moments, or one.
OPTIMIZER_STATES = {"adamw": 2, "muon": 1}


@dataclass(frozen=True)
class PlannedModel:
    """A model in a plan; it need not exist yet.

    Attributes:
        parameters: number of all parameters: those of the bases, and the bridges or adapters on top.
        weight_bytes: size of all weights that are loaded.
        empty: the model without weights; of a model stored in parts, its anchor.
        composed: returns the FLOPs of a composition; None = those of `empty`, without adapters.
        context: tokens that the model can read.
        is_plain: whether it can be trained further or composed again.
        token_ids: number of ids that its tokenizer can produce, if known.
        is_public: its shape comes from the table of public models; the model itself is not here.
    """

    parameters: int
    weight_bytes: int
    empty: PreTrainedModel
    composed: Callable[[], CompositionFlops] | None = None
    context: int = sys.maxsize
    is_plain: bool = True
    token_ids: int | None = None
    is_public: bool = False

    @cached_property
    def flops(self) -> DecoderFlops | CompositionFlops:
        """Return the model's FLOPs."""
        return self.composed() if self.composed is not None else DecoderFlops(self.empty)

    @property
    def plain(self) -> PreTrainedModel:
        """Return the model without weights; raise UserError if it is stored in parts."""
        if not self.is_plain:
            raise UserError("a composed or adapted model cannot be trained or composed again; name a plain one")
        return self.empty

    def trained(self) -> "PlannedModel":
        """Return the model after a training of all its weights: in float32, as it is saved."""
        return replace(self, weight_bytes=BYTES_PER_FLOAT * self.parameters, is_public=False)

    def with_parts(
        self, trainable: int, others: Sequence["PlannedModel"] = (), virtual_tokens: int = 0, **changes: Any
    ) -> "PlannedModel":
        """Return a model stored in parts: this one as anchor, `others` as augs, `trainable` parameters on top."""
        bases = (self, *others)
        return replace(
            self,
            parameters=sum(base.parameters for base in bases) + trainable,
            weight_bytes=sum(base.weight_bytes for base in bases) + BYTES_PER_FLOAT * trainable,
            context=min(base.context for base in bases) - virtual_tokens,
            is_plain=False,
            **changes,
        )


def model_of(shape: PreTrainedModel | Shape) -> PlannedModel:
    """Return the plan's model for a shape (a model without weights)."""
    if isinstance(shape, Shape):
        model = model_of(without_weights(shape.config))
        return replace(model, token_ids=shape.token_ids, is_public=shape.is_public)
    parameters, dtype = sum(parameter.numel() for parameter in shape.parameters()), shape.config.dtype
    each = dtype.itemsize if isinstance(dtype, torch.dtype) else BYTES_PER_FLOAT
    return PlannedModel(parameters, each * parameters, shape, context=declared_context(shape.config) or sys.maxsize)


@dataclass(frozen=True)
class Plan:
    """The size and cost of a training, before its data is counted.

    Attributes:
        what: what is trained, in words.
        model: the model after training.
        trainable: number of trainable parameters.
        flops: row length in tokens -> training FLOPs per token.
        frozen_bytes: size of the weights that are loaded but not trained.
        about: further facts about the models to show.
        more: facts to show after the number of trainable parameters.
    """

    what: str
    config: TrainingConfig
    model: PlannedModel
    trainable: int
    flops: Callable[[int], float]
    frozen_bytes: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> TrainSettings:
        """Return the training settings."""
        return self.config.settings

    @property
    def memory_bytes(self) -> int:
        """Return the size of weights, gradients and optimizer states; activations come on top."""
        return self.frozen_bytes + BYTES_PER_FLOAT * self.trainable * (2 + OPTIMIZER_STATES[self.settings.optimizer])

    def shown(self) -> dict[str, Any]:
        """Return the facts that `--dry-run` shows."""
        return {
            **self.about,
            "trainable_parameters": self.trainable,
            **self.more,
            "data": self.config.dataset,
            "validation": self.config.validation or self.settings.validation_share or None,
            "memory_bytes": self.memory_bytes,
            "memory": human_bytes(self.memory_bytes),
            "train": to_dict(self.settings),
        }


def plan_whole(
    config: TrainingConfig, model: PlannedModel, attention: str, what: str, about: Mapping[str, Any]
) -> Plan:
    """Return the plan for training all weights of a plain model."""
    return Plan(
        what, config, model.trained(), model.parameters,
        lambda length: DecoderFlops(model.plain).training(length, backward_of(attention)), about=about,
    )  # fmt: skip


def plan_training(config: TrainConfig, model: PlannedModel) -> Plan:
    """Return the plan for training a whole model, from scratch or further."""
    what = f"{config.base}, further" if config.base else "from scratch"
    about = {"model": {"source": config.base or "from scratch", **described(model)}}
    return plan_whole(config, model, str(config.model.get("attn_implementation", "")), what, about)


def plan_composition(
    config: ComposeConfig, anchor: PlannedModel, augs: Sequence[PlannedModel], aug_tokens: Sequence[float] = ()
) -> Plan:
    """Return the plan of a composition: its connections, and the size of every bridge beside the paper's formula.

    Args:
        aug_tokens: see `CompositionFlops`.

    Raises:
        UserError: connections are out of range, or heads do not divide the anchor's width.
    """
    base, shapes = anchor.plain.config, [aug.plain.config for aug in augs]
    depths = [layers.num_layers(shape) for shape in shapes]
    resolved = resolve_connections(config.connections, depths, layers.num_layers(base), config.every, config.num)
    rows, trainable, formula, width = [], 0, 0, layers.hidden_size(base)
    for shape, connections in zip(shapes, resolved, strict=True):
        with torch.device("meta"):
            bridge = Bridge(config.bridge, layers.hidden_size(shape), width, layers.num_heads(base))
        size = sum(parameter.numel() for parameter in bridge.parameters())
        pairs = [[pair.aug_layer, pair.anchor_layer] for pair in connections]
        rows.append({"connections": pairs, "heads": bridge.num_heads, "parameters_per_bridge": size})
        trainable += size * len(connections)
        formula += len(connections) * (layers.hidden_size(shape) * width + 3 * width**2)
    # A random aug is drawn in float32, whatever its own weights are stored in.
    loaded = [aug.trained() if config.random_aug else aug for aug in augs]

    @cache
    def flops() -> CompositionFlops:
        of_anchor, *of_augs = (DecoderFlops(model.plain) for model in (anchor, *augs))
        return CompositionFlops(of_anchor, of_augs, resolved, not config.bridge.norm, aug_tokens)

    return Plan(
        f"{sum(map(len, resolved))} bridges",
        config,
        anchor.with_parts(trainable, loaded, composed=flops),
        trainable,
        lambda length: flops().training(length, backward_of(config.attention)),
        frozen_bytes=sum(model.weight_bytes for model in (anchor, *loaded)),
        about={
            "anchor": {"source": config.anchor, **described(anchor)},
            "augs": [{"source": name, **described(aug)} for name, aug in zip(config.augs, augs, strict=False)],
            "bridges": rows,
        },
        more={
            "share_of_anchor": round(trainable / anchor.parameters, 4),
            "paper_formula_without_output": formula,
        },
    )


def described(model: PlannedModel) -> dict[str, Any]:
    """Return the facts of an architecture that a plan shows."""
    config = model.empty.config
    return {
        "model_type": config.model_type,
        "layers": layers.num_layers(config),
        "width": layers.hidden_size(config),
        "heads": layers.num_heads(config),
        "parameters": model.parameters,
    }


def backward_of(attention: str) -> float:
    """Return the cost of an attention's backward pass, in units of its forward pass."""
    return EAGER if attention == "eager" else FUSED
