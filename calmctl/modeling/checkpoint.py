"""Checkpoints of composed models: composition parameters, configuration and a fingerprint of each base.

The weights of the bases are not written unless asked for (`merge_bases`). A checkpoint names where each base came from
and refuses one whose configuration or weights differ.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import cached_file

from calmctl.errors import UserError
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.sources import load_base

if TYPE_CHECKING:
    from calmctl.modeling.composed import ComposedModelForCausalLM

WEIGHTS_FILE = "model.safetensors"
# Facts about how a configuration was loaded, not about the model it describes.
VOLATILE_CONFIG_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "_attn_implementation_autoset")


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names, dtypes, shapes and bytes of tensors, independent of their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return a SHA-256 over a configuration dict without facts of loading."""
    kept = {key: value for key, value in config.items() if key not in VOLATILE_CONFIG_KEYS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """Return what identifies a base: configuration and weight hashes, dtype and size."""
    return {
        "architecture": type(model).__name__,
        "config_sha256": config_sha256(model.config.to_dict()),
        "weights_sha256": weights_sha256(dict(model.named_parameters())),
        "dtype": str(model.dtype).removeprefix("torch."),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def save_composed(model: "ComposedModelForCausalLM", directory: Path, merge_bases: bool = False) -> None:
    """Write config.json and model.safetensors (composition parameters only), then read them back and compare.

    Args:
        merge_bases: also write every base below the directory, which makes it self-contained.

    Raises:
        UserError: what was read back is not what was written (a full or failing disk).
    """
    directory.mkdir(parents=True, exist_ok=True)
    bases = [model.anchor, *model.augs]
    names = ["anchor", *(f"aug_{index}" for index in range(len(model.augs)))]
    sources = [_source(base, directory) for base in bases]
    if merge_bases:
        for base, name in zip(bases, names, strict=True):
            base.save_pretrained(directory / name)
        sources = [{"source": name} for name in names]
    if not model.config.bases:
        model.config.bases = [{"fingerprint": fingerprint(base)} for base in bases]
    model.config.bases = [
        {**source, "fingerprint": known["fingerprint"]}
        for source, known in zip(sources, model.config.bases, strict=True)
    ]
    model.config.architectures = [type(model).__name__]
    tensors = {
        name: parameter.detach().cpu().contiguous() for name, parameter in model.composition_parameters().items()
    }
    written = directory / f"{WEIGHTS_FILE}.tmp"
    save_file(tensors, written, metadata={"format": "pt"})
    if weights_sha256(_read_weights(written)) != weights_sha256(tensors):
        raise UserError(f"{written}: the file read back differs from what was written; check the disk")
    os.replace(written, directory / WEIGHTS_FILE)
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)


def _source(base: PreTrainedModel, directory: Path) -> dict[str, Any]:
    name = base.config._name_or_path or ""
    if name and Path(name).is_dir():
        absolute = Path(name).resolve()
        return {"source": str(absolute), "relative_source": os.path.relpath(absolute, directory.resolve())}
    return {"source": name, "revision": getattr(base.config, "_commit_hash", None)}


def load_composed(
    location: str | Path,
    anchor: PreTrainedModel | str | None = None,
    augs: Sequence[PreTrainedModel | str] | None = None,
    *,
    allow_different_base: bool = False,
    dtype: torch.dtype | str | None = None,
    **arguments: Any,
) -> "ComposedModelForCausalLM":
    """Load a composed model from a directory or hub id.

    Args:
        anchor, augs: bases to use instead of those the checkpoint names.
        allow_different_base: accept bases whose fingerprints differ.
        dtype: convert everything to this type after the fingerprints have been checked in the recorded one.
        arguments: passed to `from_pretrained` of the bases (device_map, attn_implementation, ...).

    Raises:
        UserError: a file is missing or damaged, keys or shapes do not match, or a base is not the recorded one.
    """
    from calmctl.modeling.composed import ComposedModelForCausalLM

    # What the Auto classes pass on about this checkpoint says nothing about its bases.
    revision = arguments.pop("revision", None)
    arguments.pop("adapter_kwargs", None)
    config = arguments.pop("config", None) or ComposedConfig.from_pretrained(location, revision=revision or "main")
    given = [anchor, *(augs if augs is not None else [None] * len(config.augs))]
    roles = ["anchor", *(f"aug {index}" for index in range(len(config.augs)))]
    bases = []
    for role, known, override in zip(roles, config.bases, given, strict=True):
        base = load_base(
            override if override is not None else _locate(known, location, role),
            **{"dtype": known["fingerprint"]["dtype"], **arguments},
        )
        if not allow_different_base:
            _check_base(role, known["fingerprint"], base)
        bases.append(base)
    model = ComposedModelForCausalLM(config, bases[0], bases[1:])
    path = Path(location) / WEIGHTS_FILE
    if not Path(location).is_dir():
        path = Path(cached_file(str(location), WEIGHTS_FILE, revision=revision))  # type: ignore[arg-type]
    load_parameters(model, path)
    if dtype not in (None, "auto"):
        torch.nn.Module.to(model, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return model


def _locate(known: Mapping[str, Any], location: str | Path, role: str) -> str:
    """Return where to load a base from: beside the checkpoint, else where it was, else a hub id."""
    candidates = [Path(location) / known[key] for key in ("relative_source", "source") if known.get(key)]
    for candidate in candidates:
        if candidate.is_dir():
            return str(candidate)
    source = known.get("source") or ""
    if not source or Path(source).is_absolute():
        raise UserError(f"{location}: the {role} is not at {source or 'any recorded place'}; give it explicitly")
    revision = known.get("revision")
    return f"{source}@{revision}" if revision else source


def _check_base(role: str, known: Mapping[str, Any], base: PreTrainedModel) -> None:
    found = fingerprint(base)
    for key in ("architecture", "config_sha256", "weights_sha256"):
        if found[key] != known[key]:
            raise UserError(
                f"the {role} at {base.config._name_or_path!r} is not the one this model was composed with "
                f"({key} {known[key][:12]} expected, {found[key][:12]} found); allow_different_base overrides"
            )


def load_parameters(model: "ComposedModelForCausalLM", path: Path) -> None:
    """Load composition parameters from a safetensors file; every key and shape has to match.

    Raises:
        UserError: the file is missing or damaged, or its keys or shapes are not the model's.
    """
    tensors, parameters = _read_weights(path), model.composition_parameters()
    missing, unexpected = sorted(parameters.keys() - tensors), sorted(tensors.keys() - parameters)
    if missing or unexpected:
        raise UserError(f"{path}: missing keys {missing[:5]}, unexpected keys {unexpected[:5]}")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            raise UserError(f"{path}: {name} has shape {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}")
        with torch.no_grad():
            parameter.copy_(tensors[name])


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: the checkpoint is missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: the checkpoint is damaged ({error})") from error
