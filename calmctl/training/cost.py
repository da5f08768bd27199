"""What a training costs: parameters, FLOPs, seconds a step, bytes on disk (appendix C of the paper, measured)."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """Return the FLOPs of two matrix products: scores, and the values they weigh; a multiply-add counts twice."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[-2] * (width + value[-1])


def _forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return _attention_flops(query, key, value)


def _backward(_gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    # Scores once more, and two products for each of the forward's.
    return round(2.5 * _attention_flops(query, key, value))


# torch counts the fused attention of GPUs, and not that of CPUs.
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
    """Return what a run says of its cost; None where nothing was measured.

    Args:
        trainable: number of trainable parameters.
        log: rows of the training log.
        flops: FLOPs and tokens of one measured micro-batch, forward and backward.
        model_folder: what was written.
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
    """Return the median of the seconds a step between two neighbouring rows of a log; None for fewer than two.

    The median leaves out rows between which something was saved, validated or interrupted.
    """
    rows = [row for row in log if "loss" in row]
    pairs = zip(rows, rows[1:], strict=False)
    return _median([(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs if b["step"] > a["step"]])


def _median(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else None
