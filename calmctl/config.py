"""Configurations: compose a YAML preset or file and overrides into a frozen dataclass.

Composition is Hydra's compose API over the packaged `calmctl.conf` and, searched first, the user's folder.
A preset `data/kv/tiny` is the file `data/kv/tiny.yaml`; its content lands at the top of the configuration, so
preset files need no `# @package` header. No OmegaConf object leaves this module.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from calmctl.errors import UserError
from calmctl.opened_hydra import one_line, opened_hydra, quoted
from calmctl.presets import Preset, conf_dir, config_folders, find_preset, list_presets
from calmctl.schema import field_types, from_dict, nested_schema, to_dict, unknown_key
from calmctl.settings import check_key, nearest
from data_builders.files import read_text, write_text
from data_builders.values import read_yaml

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.core.override_parser.types import Override

__all__ = [
    "Preset",
    "conf_dir",
    "from_dict",
    "list_presets",
    "load_config",
    "sweeping",
    "to_dict",
    "to_yaml",
]

T = TypeVar("T")
# Limits of a preset and of an override: Hydra would take minutes over more.
_MAX_VALUES, _MAX_CHARACTERS = 10_000, 20_000


def load_config(
    schema: type[T],
    preset: str,
    overrides: Sequence[str] = (),
    config_dir: Path | None = None,
    file: Path | None = None,
) -> T:
    """Compose `preset` with Hydra `overrides` and return it as `schema`, a (nested) frozen dataclass.

    A setting that the schema knows can be overridden whether or not the preset mentions it.

    Args:
        config_dir: folder of the user's presets, searched first.
        file: take its settings, as those of a preset in the group of `preset`; `config.yaml` of a run, for example.

    Raises:
        UserError: unknown preset, key or group; malformed override; value of the wrong type or out of range.
    """
    with _found(preset, config_dir, file) as (found, folders, label):
        values = _compose(found, _prepare_overrides(schema, overrides, folders), folders, label)
    _check_keys(schema, values, label)
    return from_dict(schema, values)


@contextmanager
def sweeping(
    schema: type,
    preset: str,
    overrides: Sequence[str],
    config_dir: Path | None = None,
    file: Path | None = None,
) -> Iterator[tuple[Hydra, list[str]]]:
    """Open Hydra for a sweep over settings; yield it with its overrides, that for the preset or file first.

    Which values settings may have is not checked: whoever runs one of the sweep's jobs does.

    Args:
        config_dir, file: see `load_config`.

    Raises:
        UserError: unknown preset or key, or malformed override; also where Hydra, a sweeper or a launcher refuses
            something.
    """
    with _found(preset, config_dir, file) as (found, folders, _):
        prepared = _prepare_overrides(schema, overrides, folders, is_sweep=True)
        with opened_hydra("--multirun", folders) as hydra:
            yield hydra, _arguments(found, prepared, folders)


@contextmanager
def _found(preset: str, config_dir: Path | None, file: Path | None) -> Iterator[tuple[str, list[Path], str]]:
    """Yield a preset's name, the folders to search for it, and what messages call it; for a file, of its copy.

    Raises:
        UserError: there is none, or Hydra could not read it.
    """
    folders = config_folders(config_dir)
    with TemporaryDirectory() as place:
        if file is None:
            find_preset(preset, config_dir)
            label = f"preset {preset}"
        else:
            preset, label = _as_preset(file, posixpath.dirname(preset), Path(place)), str(file)
            folders.insert(0, Path(place))
        if len(folders) > 1:
            _check_files(preset, folders)
        try:
            yield preset, folders, label
        except UserError as error:
            raise UserError(str(error).replace(f"{place}/{preset}.yaml", label)) from error


def to_yaml(config: object) -> str:
    """Return `config` (a dataclass or a mapping) as YAML, keys in order of declaration."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _as_preset(file: Path, group: str, place: Path) -> str:
    """Write the settings of a file as a preset of `group` below `place`, and return the preset's name.

    What a run has stored is taken as it is: `${` in it is no reference to another setting, and a text that looks like a
    number is a text.
    """
    if file.is_dir():
        raise UserError(f"--config {file}: a folder; give a file, such as {file / 'config.yaml'}")
    content = read_yaml(file, _MAX_VALUES)
    if not isinstance(content, dict | None):
        raise UserError(f"--config {file}: is a {type(content).__name__}, not settings; write NAME: VALUE")
    is_stored = content is not None and (file.parent / "run.json").exists()
    text = json.dumps(_escaped(content), ensure_ascii=False) if is_stored else read_text(file)
    write_text(place / group / "file.yaml", text)
    return f"{group}/file"


def _escaped(value: Any) -> Any:
    """Return plain values with every `${` in their texts escaped."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("${", r"\${") if isinstance(value, str) else value


def _check_files(preset: str, folders: Sequence[Path], after: tuple[str, ...] = ()) -> None:
    """Raise UserError for a file that Hydra cannot read: the preset's, or that of a preset it builds on."""
    if preset in after:
        raise UserError(f"preset {after[0]} builds on itself ({' -> '.join((*after, preset))}); correct its defaults")
    path = next((path for folder in folders if (path := folder / f"{preset}.yaml").exists()), None)
    if path is None:
        return  # Hydra says which presets there are
    content = read_yaml(path, _MAX_VALUES)
    if not isinstance(content, dict | None):
        raise UserError(f"{path}: is a {type(content).__name__}, not settings; write NAME: VALUE")
    for other in _defaults(content or {}, posixpath.dirname(preset)):
        _check_files(other, folders, (*after, preset))


def _defaults(content: dict[str, Any], group: str) -> Iterator[str]:
    """Yield the presets in the defaults list of a preset of `group`."""
    listed = content.get("defaults")
    for entry in listed if isinstance(listed, list) else []:
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            folder = re.sub(r"^((optional|override) +)*|@.*", "", str(key))
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str) and name != "_self_":
                    yield posixpath.join("/", group, folder, name.partition("@")[0]).lstrip("/")


def _prepare_overrides(
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
                _check_files(f"{override.key_or_group}/{choice}", folders)
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
    for setting, other, default in () if is_sweep else _alternatives(schema):
        if {setting, other} <= given:
            raise UserError(f"{other} and {setting} are given; give one of the two")
        if other in given:  # and not what the preset has in its place
            prepared.append(f"++{setting}={default}")
    return prepared


def _alternatives(schema: type, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (setting, the one in whose place it can be given, its default), as `a.b.c`, of a dataclass."""
    for field in dataclasses.fields(schema):
        if other := field.metadata.get("instead_of"):
            yield f"{prefix}{field.name}", f"{prefix}{other}", field.default
        if (nested := nested_schema(field_types(schema).get(field.name))) is not None:
            yield from _alternatives(nested, f"{prefix}{field.name}.")


def _is_group_override(override: Override, folders: Sequence[Path]) -> bool:
    key = override.key_or_group
    if "/" in key or override.package is not None or key.startswith("hydra."):
        return True
    return _names_presets(override, folders) and (isinstance(override.value(), str) or override.is_choice_sweep())


def _names_presets(override: Override, folders: Sequence[Path]) -> bool:
    """Tell whether an override has the name of a folder of presets, which Hydra takes for a choice of one."""
    return any((folder / override.key_or_group).is_dir() for folder in folders)


def _check_keys(schema: type, values: Mapping[str, Any], label: str, group: str = "") -> None:
    """Raise UserError for a setting that `schema` does not have; `group` is the dotted path of `values`."""
    level = schema
    for part in filter(None, group.split(".")):
        level = nested_schema(field_types(level)[part]) or level
    fields = field_types(level)
    for key, value in values.items():
        path = f"{group}.{key}".lstrip(".")
        if "." in key:
            name, _, rest = key.partition(".")
            raise UserError(f"{label}: {path!r}: in a file, write groups one in the other, as {name}: {{{rest}: ...}}")
        if key not in fields:
            raise UserError(f"{label}: {unknown_key(path, list(fields), nearest(schema, path))}")
        if nested_schema(fields[key]) is not None and isinstance(value, Mapping):
            _check_keys(schema, value, label, path)


def _compose(preset: str, overrides: Sequence[str], folders: Sequence[Path], label: str) -> dict[str, Any]:
    from hydra import compose
    from omegaconf import OmegaConf

    with opened_hydra(label, folders):
        config = compose(None, _arguments(preset, overrides, folders))
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _arguments(preset: str, overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the overrides that Hydra composes a preset from."""
    group, _, name = preset.rpartition("/")
    # Choosing the preset as a group option with package _global_ puts its content at the top without a header
    # in the file; files can then begin with their command, and a preset can build on another of its group.
    arguments = [f"+{group}@_global_={name}", *overrides]
    if len(folders) > 1:
        arguments.append(f"hydra.searchpath={quoted(tuple(f'file://{folder}' for folder in folders[1:]))}")
    return arguments
