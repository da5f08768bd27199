"""Where a checkpoint says that its bases are, and how they are found again."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import place_of
from calmctl.modeling.bases.sources import base_config
from calmctl.modeling.configuration import PartsConfig


def source_of(base: PreTrainedModel, directory: Path) -> dict[str, Any]:
    """Return where a base is: its hub id, or its path relative to the checkpoint, with which it can be moved.

    A local base that shares no folder but the root with the checkpoint has its absolute path as well.
    """
    name = base.config._name_or_path or ""
    if name and (absolute := place_of(name)) is not None:
        place = directory.resolve()
        found = {"relative_source": os.path.relpath(absolute, place)}
        is_near = os.path.commonpath([absolute, place]) != place.anchor
        return found if is_near else {"source": str(absolute), **found}
    return {"source": name, "revision": getattr(base.config, "_commit_hash", None)}


def check_bases_are_there(
    config: PartsConfig, location: str | Path, anchor: str = "", augs: Sequence[str] = ()
) -> None:
    """Raise UserError unless every base of a stored model can be found, where it is given or where it is recorded."""
    if augs:
        check_number(config, location, augs)
    given = [anchor, *(augs or [""] * len(config.augs))]
    for place, (known, override) in enumerate(zip(config.bases, given, strict=True)):
        if override:
            base_config(override)
        elif "untrained_seed" not in known and not ("subfolder" in known and not Path(location).is_dir()):
            base_config(find_base(known, location, f"aug {place - 1}" if place else "anchor"))


def check_number(config: PartsConfig, location: str | Path, augs: Sequence[Any]) -> None:
    """Raise UserError unless as many augs are given as a stored model was composed with."""
    if len(augs) != len(config.augs):
        raise UserError(f"{location} was composed with {len(config.augs)} augs, but {len(augs)} are given")


def find_base(known: Mapping[str, Any], location: str | Path, role: str) -> str:
    """Return where to load a base from: inside or beside the checkpoint, else its recorded path, else its hub id."""
    keys = ("subfolder", "relative_source", "source")
    for candidate in (Path(location) / known[key] for key in keys if known.get(key)):
        if place_of(str(candidate)) is not None:
            return str(candidate)
    source = known.get("source") or ""
    if not source or Path(source).is_absolute():
        expected = source or known.get("relative_source") or "any recorded place"
        option = role if role == "anchor" else "aug"
        raise UserError(
            f"{location}: the {role} is not at {expected}; say where it is: --{option} MODEL "
            "(in Python: anchor=..., augs=[...])"
        )
    revision = known.get("revision")
    return f"{source}@{revision}" if revision else source
