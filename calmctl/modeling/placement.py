"""Dtypes and devices of models: checked before anything is loaded, converted, inspected."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed, nn

from calmctl.errors import UserError
from calmctl.modeling.residual_streams import Standardize

# Values of `device_map` that accelerate resolves.
STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a floating-point dtype, given as such or by name.

    Raises:
        UserError: there is no such floating-point type.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"dtype={str(dtype)!r}: no such floating-point type; use float32, bfloat16 or float16")
    return found


def check_placement(dtype: torch.dtype | str | None, device_map: Any) -> None:
    """Raise UserError for an unknown dtype or a missing device.

    Args:
        device_map: as `from_pretrained` takes it: a strategy, a device, or a mapping of module names to devices.
    """
    if dtype not in (None, "auto"):
        as_dtype(dtype)
    devices = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    for device in set(devices) - {None, "disk", *STRATEGIES}:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"device_map={str(device)!r}: that device is not there ({reason})") from error


def convert(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of a model to a floating-point dtype, in place.

    Buffers that are not stored (rotary frequencies) keep theirs, as in transformers' `from_pretrained`: in bfloat16 the
    angles of far positions would be off by radians. So do means and deviations of `Standardize`.
    """
    kept = [(module, name) for module in model.modules() for name in module._non_persistent_buffers_set]
    kept += [
        (module, name) for module in model.modules() if isinstance(module, Standardize) for name in module._buffers
    ]
    buffers = [module._buffers[name] for module, name in kept]
    nn.Module.to(model, dtype=dtype)
    for (module, name), buffer in zip(kept, buffers, strict=True):
        module._buffers[name] = buffer


def is_movable(model: nn.Module) -> bool:
    """Tell whether a model can be moved or converted as a whole: no part is quantised or placed by a device map."""
    return not any(
        getattr(part, "is_quantized", False) or getattr(part, "hf_device_map", None) for part in model.modules()
    )


def is_sharded(layer: nn.Module) -> bool:
    """Tell whether a layer is sharded over processes, which have to run it together (FSDP, ZeRO-3 of DeepSpeed)."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel  # takes a second, rarely needed

    return isinstance(layer, FSDPModule | FullyShardedDataParallel) or any(
        hasattr(parameter, "ds_id") for parameter in layer.parameters()
    )
