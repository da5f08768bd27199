"""Begin a training with the trained parts of a stored model: bridges, or adapters, of the same form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import hub_file, locate
from calmctl.modeling.bases.source_files import unloadable
from calmctl.modeling.bases.sources import base_config
from calmctl.modeling.configuration import PartsConfig
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.stored.weights import WEIGHTS_FILE, load_parameters
from data_builders.files import sha256_of


def parts_config(source: str, expected: type[PartsConfig]) -> Any:
    """Return the configuration of a run, model folder, training checkpoint or hub id with trained parts.

    Raises:
        UserError: there is none, or it is not of the expected class.
    """
    config = base_config(source)
    if type(config) is not expected:
        raise UserError(f"init_from={source}: holds a {config.model_type} model, and {expected.model_type} is needed")
    return config


def check_same_form(source: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compare what decides on the shapes and the meaning of trained parts, name -> value.

    Raises:
        UserError: a value differs.
    """
    for name, value in ours.items():
        if theirs[name] != value:
            raise UserError(
                f"init_from={source}: {name} there: {theirs[name]}, here: {value}; make them equal, or leave init_from "
                "out"
            )


def parts_sha256(source: str) -> str:
    """Return the sha256 of the trained parts in a stored model."""
    return sha256_of(_weights(source))


def load_parts_of(model: PartsModel, source: str) -> None:
    """Give a model the trained parts of a stored one; every key and shape has to match.

    Raises:
        UserError: see `load_parameters`.
    """
    load_parameters(model, _weights(source))


def _weights(source: str) -> Path:
    name, revision = locate(source)
    if (file := Path(name) / WEIGHTS_FILE).is_file():
        return file
    if Path(name).exists():
        raise UserError(f"init_from={source}: it has no {WEIGHTS_FILE} (give a run, a model folder or a checkpoint)")
    try:
        return Path(str(hub_file(name, WEIGHTS_FILE, revision, {})))
    except OSError as error:
        raise unloadable(f"trained bridges or adapters ({WEIGHTS_FILE})", source, error) from error
