"""The cost of a training (appendix C of the paper), measured or planned: FLOPs, seconds per step, bytes on disk.

Planned FLOPs follow the rules of measured ones: a matrix product of (m, k) and (k, n) is 2mkn, attention covers whole
rows (masked positions too), and norms, activations and embeddings are free. They assume dense decoders: experts in one
fused tensor are not counted.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from calmctl.modeling import layers
from calmctl.modeling.bridge import forward_flops, training_flops
from calmctl.modeling.connections import Connection

# Backward passes of attention in units of the forward pass: four matrix products instead of two; the fused kernel
# also recomputes the scores.
FUSED, EAGER = 2.5, 2.0
_aten = torch.ops.aten


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """Return the FLOPs of attention's two matrix products (scores, weighted values); a multiply-add counts twice."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[-2] * (width + value[-1])


def _forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return _attention_flops(query, key, value)


def _backward(_gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    # The scores are recomputed, then two products for each one of the forward pass.
    return round(2.5 * _attention_flops(query, key, value))


# torch counts the fused attention of GPUs, but not that of CPUs.
_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}


def flop_counter() -> FlopCounterMode:
    """Return a context that counts the FLOPs of matrix products and attention."""
    return FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)


def training_cost(
    trainable: int, log: Sequence[Mapping[str, Any]], flops: Mapping[str, Any] | None, model_folder: Path
) -> dict[str, Any]:
    """Return the entry `cost` of `run.json`; values that were not measured are None.

    Args:
        trainable: number of trainable parameters.
        log: rows of the training log.
        flops: measured FLOPs and tokens of one micro-batch, forward and backward.
        model_folder: the saved model.
    """
    seconds = seconds_per_step(log)
    return {
        "trainable_parameters": trainable,
        "flops_per_token": round(flops["flops"] / flops["tokens"]) if flops else None,
        "seconds_per_step": round(seconds, 6) if seconds is not None else None,
        "tokens_per_second": _median([row["tokens_per_second"] for row in log if "tokens_per_second" in row]),
        "model_bytes": sum(file.stat().st_size for file in model_folder.rglob("*") if file.is_file()),
    }


def seconds_per_step(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the median seconds per step between neighbouring rows of a log; None for fewer than two rows.

    The median discounts intervals in which the run saved, validated or was interrupted.
    """
    rows = [row for row in log if "loss" in row]
    pairs = zip(rows, rows[1:], strict=False)
    return _median([(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs if b["step"] > a["step"]])


def _median(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else None


class DecoderFlops:
    """FLOPs of a decoder-only model, with or without weights.

    Attributes:
        layers: number of entries in the matrices of each layer.
        attended: total width of the heads of a layer's attention.
        head: number of entries in the LM head's matrix.
        width: of the residual stream.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        config = layers.text_config(model.config)
        self.layers = [_matrix_entries(layer) for layer in layers.decoder_layers(model)]
        self.width = layers.hidden_size(config)
        head_dim = getattr(config, "head_dim", None) or self.width // layers.num_heads(config)
        self.attended = layers.num_heads(config) * head_dim
        self.head = _matrix_entries(model.get_output_embeddings())

    @property
    def depth(self) -> int:
        """Return the number of layers that run one after the other."""
        return len(self.layers)

    def forward(self, length: int, num_layers: int | None = None, with_head: bool = True) -> float:
        """Return the FLOPs per token of a forward pass through the first layers, in rows of `length` tokens."""
        matrices = self.layers[:num_layers]
        return 2 * sum(matrices) + len(matrices) * self.attention(length) + 2 * self.head * with_head

    def attention(self, length: int) -> float:
        """Return the FLOPs per token of the attention scores and weighted values of one layer."""
        return 4 * length * self.attended

    def training(self, length: int, attention_backward: float = FUSED) -> float:
        """Return the FLOPs per token of a step that trains every weight."""
        products = 6 * (sum(self.layers) + self.head)
        return products + len(self.layers) * self.attention(length) * (1 + attention_backward)

    def frozen_training(self, length: int, first: int = 0, attention_backward: float = FUSED) -> float:
        """Return the FLOPs per token of a step with all layers frozen, gradients passing through those from `first`."""
        above = self.layers[first:]
        backward = 2 * (sum(above) + self.head) + len(above) * self.attention(length) * attention_backward
        return self.forward(length) + backward


def _matrix_entries(module: nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear | Conv1D))


@dataclass(frozen=True)
class CompositionFlops:
    """FLOPs of a composed model: frozen bases and bridges.

    Attributes:
        connections: of each aug.
        is_folded: projection, keys and values are one product in a forward pass (bridges without a norm).
        aug_tokens: tokens that each aug reads per anchor token (see `reading_facts`); empty = one each.
    """

    anchor: DecoderFlops
    augs: Sequence[DecoderFlops]
    connections: Sequence[Sequence[Connection]]
    is_folded: bool = True
    aug_tokens: Sequence[float] = ()

    @property
    def depth(self) -> int:
        """Return the sequential depth: layers of the anchor, layers of augs up to the last tapped one, and bridges."""
        read = sum(max(pair.aug_layer for pair in pairs) + 1 for pairs in self.connections)
        return self.anchor.depth + read + sum(map(len, self.connections))

    @cached_property
    def _first(self) -> int:
        return min(pair.anchor_layer for pairs in self.connections for pair in pairs)

    def forward(self, length: int, with_head: bool = True) -> float:
        """Return the FLOPs per token of a forward pass in rows of `length` tokens."""
        width, flops = self.anchor.width, self.anchor.forward(length, with_head=with_head) + self._augs(length)
        for aug, pairs, read in self._joined():
            bridge = forward_flops(aug.width, width, read, self.is_folded) + 4 * read * length * width
            flops += len(pairs) * bridge
        return flops

    def training(self, length: int, attention_backward: float = FUSED) -> float:
        """Return the FLOPs per token of a step that trains the bridges.

        Augs run forward only, up to their last tapped layer; anchor layers up to the first connection keep no graph.
        """
        width = self.anchor.width
        flops = self._augs(length) + self.anchor.frozen_training(length, self._first + 1, attention_backward)
        for aug, pairs, read in self._joined():
            for pair in pairs:
                flops += training_flops(aug.width, width, read, is_first=pair.anchor_layer == self._first)
                flops += 4 * read * length * width * (1 + attention_backward)
        return flops

    def _augs(self, length: int) -> float:
        return sum(
            read * aug.forward(round(read * length), max(pair.aug_layer for pair in pairs) + 1, with_head=False)
            for aug, pairs, read in self._joined()
        )

    def _joined(self) -> Iterator[tuple[DecoderFlops, Sequence[Connection], float]]:
        """Yield each aug, its connections, and the tokens that it reads per anchor token."""
        return zip(self.augs, self.connections, self.aug_tokens or [1.0] * len(self.augs), strict=True)


def adapter_training(anchor: DecoderFlops, trainable: int, length: int, attention_backward: float = FUSED) -> float:
    """Return the FLOPs per token of a step that trains adapters in every layer of a frozen anchor.

    Every adapter parameter counts as used once per token; this fits prefixes too, which every token attends to.
    """
    return anchor.frozen_training(length, 0, attention_backward) + 6 * trainable


def num_trainable(model: PreTrainedModel) -> int:
    """Return the number of parameters that require gradients."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
