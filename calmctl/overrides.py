"""Overrides: what a command line changes of a preset, checked against the settings and made ready for Hydra."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calmctl.errors import UserError
from calmctl.opened_hydra import one_line
from calmctl.presets import check_files
from calmctl.schema import field_types, nested_schema
from calmctl.settings import check_key

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Hydra would take minutes over more.
_MAX_CHARACTERS = 20_000


def prepare_overrides(
    schema: type, overrides: Sequence[str], folders: Sequence[Path], is_sweep: bool = False
) -> list[str]:
    """Check the keys of value overrides, and let them set settings that the preset does not mention.

    Args:
        is_sweep: overrides may have several values, and be of Hydra's own settings.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    prepared, given = [], set()
    for text in overrides:
        if len(text) > _MAX_CHARACTERS:
            advice = f"{len(text):,} characters are too many; write it into a preset (--config-dir)"
            raise UserError(f"override {text[:30]!r}...: {advice}")
        try:
            override = OverridesParser.create().parse_override(text)
        except (HydraException, RecursionError) as error:
            advice = "write key=value; special characters in quotes of their own: 'key=\"a (b)\"'"
            raise UserError(f"override {text[:200]!r}: {one_line(error)} ({advice})") from error
        if not is_sweep and override.is_sweep_override():
            advice = "write key=[a,b] for a list, key='a,b' for text; --multirun trains once for each value"
            raise UserError(f"override {text!r}: one value; {advice}")
        if not is_sweep and re.match(r"hydra[./]", override.key_or_group):
            raise UserError(f"override {text!r}: a setting of Hydra's sweeps; add --multirun, or leave it out")
        if _is_group_override(override, folders):
            if len(folders) > 1 and isinstance(choice := override.value(), str):
                check_files(f"{override.key_or_group}/{choice}", folders)
            prepared.append(text)
            continue
        check_key(schema, override.key_or_group)
        if _names_presets(override, folders) and not isinstance(override.value(), dict):
            raise UserError(
                f"override {text!r}: {override.key_or_group} is a group of settings; write "
                f"{override.key_or_group}.NAME=VALUE"
            )
        given.add(override.key_or_group)
        prepared.append(f"++{text}" if override.type is OverrideType.CHANGE else text)
    for setting, other, default in () if is_sweep else alternatives(schema):
        if {setting, other} <= given:
            raise UserError(f"{other} and {setting} are given; give one of the two")
        if other in given:  # and not what the preset has in its place
            prepared.append(f"++{setting}={default}")
    return prepared


def alternatives(schema: type, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (setting, the one in whose place it can be given, its default), as `a.b.c`, of a dataclass."""
    for field in dataclasses.fields(schema):
        if other := field.metadata.get("instead_of"):
            yield f"{prefix}{field.name}", f"{prefix}{other}", field.default
        if (nested := nested_schema(field_types(schema).get(field.name))) is not None:
            yield from alternatives(nested, f"{prefix}{field.name}.")


def _is_group_override(override: Override, folders: Sequence[Path]) -> bool:
    key = override.key_or_group
    if "/" in key or override.package is not None or key.startswith("hydra."):
        return True
    return _names_presets(override, folders) and (isinstance(override.value(), str) or override.is_choice_sweep())


def _names_presets(override: Override, folders: Sequence[Path]) -> bool:
    """Tell whether an override has the name of a folder of presets, which Hydra takes for a choice of one."""
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def setting_of(text: str) -> str:
    """Return the setting that an override is of, without the signs before it."""
    return text.partition("=")[0].lstrip("+~")
