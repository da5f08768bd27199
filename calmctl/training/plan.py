"""Plans: what a training would do, worked out from configurations without loading or allocating any weights."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from calmctl.config import to_dict
from calmctl.modeling import layers
from calmctl.modeling.bases.sources import without_weights
from calmctl.modeling.bridge import Bridge
from calmctl.modeling.connections import resolve_connections
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.flops import CompositionFlops, DecoderFlops
from calmctl.training.settings import TrainSettings

BYTES_PER_FLOAT = 4
# AdamW holds two moments, Muon one; gradients are one more copy of what is trained.
OPTIMIZER_STATES = {"adamw": 2, "muon": 1}


def training_facts(config: TrainConfig, model: PreTrainedConfig) -> dict[str, Any]:
    """Return what a plan says of the training of a whole model."""
    parameters = count_parameters(model)
    return {
        "model": {"source": config.base or "from scratch", **describe(model)},
        "data": config.dataset,
        "validation": config.validation or config.train.validation_share or None,
        "trainable_parameters": parameters,
        **memory_facts(training_memory(parameters, parameters, config.train)),
        "train": to_dict(config.train),
    }


def composition_facts(
    config: ComposeConfig, anchor: PreTrainedConfig, augs: Sequence[PreTrainedConfig]
) -> dict[str, Any]:
    """Return what a plan says of a composition.

    Raises:
        UserError: connections are out of range, or heads do not divide the anchor's width.
    """
    return {
        "anchor": {"source": config.anchor, **describe(anchor)},
        "augs": [{"source": source, **describe(aug)} for source, aug in zip(config.augs, augs, strict=True)],
        **plan_bridges(config, anchor, augs),
    }


def plan_bridges(config: ComposeConfig, anchor: PreTrainedConfig, augs: Sequence[PreTrainedConfig]) -> dict[str, Any]:
    """Return the connections of a composition, and the size of every bridge beside the paper's formula."""
    resolved = resolve_connections(
        config.connections,
        [layers.num_layers(aug) for aug in augs],
        layers.num_layers(anchor),
        config.every,
        config.num,
    )
    rows, trainable, formula = [], 0, 0
    for aug, connections in zip(augs, resolved, strict=True):
        d_aug, d_anchor = layers.hidden_size(aug), layers.hidden_size(anchor)
        bridge = bridge_without_weights(config, anchor, aug)
        size = sum(parameter.numel() for parameter in bridge.parameters())
        rows.append(
            {
                "connections": [[pair.aug_layer, pair.anchor_layer] for pair in connections],
                "heads": bridge.num_heads,
                "parameters_per_bridge": size,
            }
        )
        trainable += size * len(connections)
        formula += len(connections) * (d_aug * d_anchor + 3 * d_anchor**2)
    frozen = count_parameters(anchor) + sum(count_parameters(aug) for aug in augs)
    return {
        "bridges": rows,
        "trainable_parameters": trainable,
        "share_of_anchor": round(trainable / count_parameters(anchor), 4),
        "paper_formula_without_output": formula,
        "data": config.dataset,
        "validation": config.validation or config.train.validation_share or None,
        **memory_facts(training_memory(frozen + trainable, trainable, config.train)),
        "train": to_dict(config.train),
    }


def flops_of(config: ComposeConfig, shapes: Sequence[PreTrainedModel]) -> CompositionFlops:
    """Return what a token costs in a composition of these bases, the anchor first, with or without weights.

    Raises:
        UserError: connections are out of range.
    """
    anchor, *augs = (shape.config for shape in shapes)
    depths = [layers.num_layers(aug) for aug in augs]
    connections = resolve_connections(config.connections, depths, layers.num_layers(anchor), config.every, config.num)
    of_anchor, *of_augs = map(DecoderFlops, shapes)
    return CompositionFlops(of_anchor, of_augs, connections, is_folded=not config.bridge.norm)


def bridge_without_weights(config: ComposeConfig, anchor: PreTrainedConfig, aug: PreTrainedConfig) -> Bridge:
    """Return a bridge between two models whose parameters have shapes but no values.

    Raises:
        UserError: the heads do not divide the anchor's width, or rotary needs an even head width.
    """
    with torch.device("meta"):
        return Bridge(config.bridge, layers.hidden_size(aug), layers.hidden_size(anchor), layers.num_heads(anchor))


def describe(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the facts of an architecture that a plan shows."""
    return {
        "model_type": config.model_type,
        "layers": layers.num_layers(config),
        "width": layers.hidden_size(config),
        "heads": layers.num_heads(config),
        "parameters": count_parameters(config),
    }


def count_parameters(config: PreTrainedConfig) -> int:
    """Return the number of parameters of a causal LM of this configuration."""
    return sum(parameter.numel() for parameter in without_weights(config).parameters())


def memory_facts(size: int) -> dict[str, Any]:
    """Return what a plan says of memory, in bytes and readable."""
    return {"memory_bytes": size, "memory": f"{size / 2**30:.2f} GiB"}


def training_memory(total: int, trainable: int, settings: TrainSettings) -> int:
    """Estimate weights, gradients and optimizer states in bytes; activations come on top."""
    return BYTES_PER_FLOAT * (total + trainable * (1 + OPTIMIZER_STATES[settings.optimizer]))
