"""Plans: what a training would do, worked out from configurations without loading or allocating any weights."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from calmctl.config import to_dict
from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bridge import Bridge
from calmctl.modeling.composition import check_parts
from calmctl.modeling.connections import resolve_connections
from calmctl.modeling.sources import base_config, load_tokenizer, without_weights
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.jobs import model_config
from calmctl.training.settings import TrainSettings

BYTES_PER_FLOAT = 4
# AdamW holds two moments, Muon one; gradients are one more copy of what is trained.
OPTIMIZER_STATES = {"adamw": 2, "muon": 1}


def plan_training(config: TrainConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> dict[str, Any]:
    """Return the plan of `calmctl train`; `tokenizer` stands in for one that does not exist yet."""
    config.check()
    if config.base:
        base = base_config(config.base)
    else:
        base = model_config(config.model, tokenizer or load_tokenizer(config.tokenizer))
    parameters = count_parameters(base)
    return {
        "model": {"source": config.base or "from scratch", **describe(base)},
        "data": config.dataset,
        "validation": config.validation or config.train.validation_share or None,
        "trainable_parameters": parameters,
        "memory_bytes": training_memory(parameters, parameters, config.train),
        "train": to_dict(config.train),
    }


def plan_composition(config: ComposeConfig) -> dict[str, Any]:
    """Return the plan of `calmctl compose`.

    Raises:
        UserError: what `compose` would refuse before it loads any weights.
    """
    for name in ("anchor", "augs"):
        if not getattr(config, name):
            raise UserError(f"{name} is not set; give --{name.removesuffix('s')} MODEL")
    anchor, *augs = (shape.config for shape in check_parts(config.anchor, config.augs, config.aug_reads))
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
        "memory_bytes": training_memory(frozen + trainable, trainable, config.train),
        "train": to_dict(config.train),
    }


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


def training_memory(total: int, trainable: int, settings: TrainSettings) -> int:
    """Estimate weights, gradients and optimizer states in bytes; activations come on top."""
    return BYTES_PER_FLOAT * (total + trainable * (1 + OPTIMIZER_STATES[settings.optimizer]))
