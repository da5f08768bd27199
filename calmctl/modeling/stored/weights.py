"""The weights file of a model stored in parts: its trained parameters, without those of its bases."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from calmctl.errors import UserError
from calmctl.modeling.bases.fingerprint import weights_sha256
from calmctl.modeling.stored.parts import PartsModel
from data_builders.files import atomic_path, share_as_umask_says

WEIGHTS_FILE = "model.safetensors"


def write_parameters(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors atomically, read them back and compare.

    Raises:
        UserError: they cannot be written, or differ when read back (a full or failing disk).
    """
    with atomic_path(path) as written:
        try:
            save_file(dict(tensors), written, metadata={"format": "pt"})
        except SafetensorError as error:
            raise UserError(f"{path}: cannot be written ({error})") from error
        if weights_sha256(_read_weights(written)) != weights_sha256(tensors):
            raise UserError(f"{path}: the file read back differs from what was written; check the disk")
        share_as_umask_says(written)


def load_parameters(model: PartsModel, path: Path) -> torch.dtype:
    """Load a model's stored tensors from a safetensors file; every key and shape has to match.

    Returns:
        The dtype that trained parameters are stored in; the model keeps its own.

    Raises:
        UserError: the file is missing or damaged, its keys or shapes are not the model's, or a value is not finite.
    """
    tensors, parameters = _read_weights(path), model.stored_tensors()
    missing, unexpected = sorted(parameters.keys() - tensors), sorted(tensors.keys() - parameters)
    if missing or unexpected:
        raise UserError(f"{path}: missing keys {missing[:5]}, unexpected keys {unexpected[:5]}")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            raise UserError(f"{path}: {name} has shape {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}")
        if not tensors[name].isfinite().all():
            raise UserError(f"{path}: {name} holds values that are not finite numbers; the checkpoint is no use")
        with torch.no_grad():
            parameter.copy_(tensors[name])
    return next(tensors[name].dtype for name in model.trained_parameters())


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: the checkpoint is missing") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: the checkpoint is damaged ({error})") from error
