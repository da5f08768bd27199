"""Fingerprints, by which a base is recognised when a checkpoint is loaded again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.errors import UserError

# Settings of a configuration that do not change what a model computes: how it was loaded or saved, how to run it.
NOT_IDENTITY = {
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "quantization_config",  # compared separately
}


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names, dtypes, shapes and bytes of tensors, independent of their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(model: PreTrainedModel, own_name: Callable[[str], str | None] | None = None) -> dict[str, Any]:
    """Return what identifies a base besides its configuration: class, weights and buffers, dtype, size.

    Args:
        own_name: maps a tensor's name to that in the base, None for tensors added to the base; default: all are the
            base's.

    Quantised weights are left out of the hash: libraries round and pack them differently from device to device (and
    repack them at first use). The embeddings, norms and heads that stay in a float type still tell models apart; the
    quantisation itself is compared as a part of the configuration.
    """
    state = _comparable_state(model)
    if own_name is not None:
        state = {own: tensor for name, tensor in state.items() if (own := own_name(name)) is not None}
    return {
        "architecture": type(model).__name__,
        "weights_sha256": weights_sha256(state),
        "dtype": str(model.dtype).removeprefix("torch."),
        "num_parameters": model.num_parameters(),
    }


def _comparable_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a model's weights and buffers, offloaded ones included, except those of modules with packed weights."""
    state = model.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        state |= get_state_dict_offloaded_model(model)
    if not getattr(model.config, "quantization_config", None):
        return state
    packed = tuple(f"{name}." for name, module in model.named_modules() if _is_packed(module))
    return {name: tensor for name, tensor in state.items() if not name.startswith(packed)}


def _is_packed(module: nn.Module) -> bool:
    """Tell whether a leaf module holds integers, or parameters of a quantisation library's own class."""
    if any(True for _ in module.children()):
        return False
    tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(type(t) not in (nn.Parameter, Tensor) or not t.dtype.is_floating_point for t in tensors)


def require_recorded_base(
    role: str, known: Mapping[str, Any], settings: Mapping[str, Any], base: PreTrainedModel
) -> None:
    """Refuse a base whose class, weights or configuration are not the recorded ones.

    Only configuration keys that both have are compared: versions of transformers differ in their keys, which is also
    why a hash of the configuration would prove nothing.

    Raises:
        UserError: it is another base, or the same one quantised differently.
    """
    found, actual = fingerprint(base), json.loads(base.config.to_json_string(use_diff=False))
    differences = [key for key in ("architecture", "weights_sha256") if found[key] != known[key]]
    if not _same_keys_agree(*(each.get("quantization_config") or {} for each in (settings, actual))):
        differences.insert(0, "quantization_config")
    shared = settings.keys() & actual.keys() - NOT_IDENTITY
    differences += [key for key in sorted(shared) if settings[key] != actual[key]]
    if differences:
        raise UserError(
            f"the {role} at {base.config._name_or_path!r} is not the one this model was trained with "
            f"(differs in {', '.join(differences[:3])}); allow_different_base (--allow-different-base) overrides"
        )


def _same_keys_agree(recorded: Mapping[str, Any], actual: Mapping[str, Any]) -> bool:
    """Compare the keys that two settings share; empty settings agree only with empty ones."""
    shared = recorded.keys() & actual.keys()
    return bool(recorded) == bool(actual) and all(recorded[key] == actual[key] for key in shared)
