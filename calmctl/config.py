"""Configurations: compose a YAML preset or file and overrides into a frozen dataclass.

Composition is Hydra's compose API over the packaged `calmctl.conf` and, searched first, the user's folder.
A preset `data/kv/tiny` is the file `data/kv/tiny.yaml`; its content lands at the top of the configuration, so
preset files need no `# @package` header. No OmegaConf object leaves this module.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from calmctl.errors import UserError
from calmctl.opened_hydra import opened_hydra, quoted
from calmctl.overrides import alternatives, prepare_overrides, setting_of
from calmctl.presets import (
    MAX_VALUES,
    Preset,
    check_files,
    check_group,
    conf_dir,
    config_folders,
    find_preset,
    list_presets,
)
from calmctl.schema import field_types, from_dict, nested_schema, to_dict, unknown_key
from calmctl.settings import nearest
from data_builders.files import read_text, write_text
from data_builders.values import read_yaml

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

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


def load_config(
    schema: type[T],
    preset: str,
    overrides: Sequence[str] = (),
    config_dir: Path | None = None,
    file: Path | None = None,
    may_sweep: bool = False,
) -> T:
    """Compose `preset` with Hydra `overrides` and return it as `schema`, a (nested) frozen dataclass.

    A setting that the schema knows can be overridden whether or not the preset mentions it.

    Args:
        config_dir: folder of the user's presets, searched first.
        file: take its settings, as those of a preset in the group of `preset`; `config.yaml` of a run, for example.
        may_sweep: leave aside a sweep that the preset or file holds, as where settings are only shown.

    Raises:
        UserError: unknown preset, key or group; malformed override; value of the wrong type or out of range; a sweep
            over settings that are not given one value; or a file gives two settings of which only one may be.
    """
    with _found(preset, config_dir, file) as (found, folders, label):
        prepared = prepare_overrides(schema, overrides, folders)
        given = {setting_of(text) for text in prepared}
        values, swept = _compose(found, prepared, folders, label)
        if (left := sorted(set(swept) - given)) and not may_sweep:
            advice = f"add --multirun (of compose, train and baseline), or give each one value: {left[0]}=..."
            raise UserError(f"{label} holds a sweep over {', '.join(left)}; {advice}")
        replaced = [
            f"++{setting}={default}"
            for setting, other, default in alternatives(schema)
            if _at(values, setting) and setting not in given
            if _written_last(found, prepared, folders, label, (setting, other)) == other
        ]
        if replaced:
            values, _ = _compose(found, [*replaced, *prepared], folders, label)
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
        prepared = prepare_overrides(schema, overrides, folders, is_sweep=True)
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
            check_group(find_preset(preset, config_dir).group)
            label = f"preset {preset}"
        else:
            preset, label = _as_preset(file, posixpath.dirname(preset), Path(place)), str(file)
            folders.insert(0, Path(place))
        if len(folders) > 1:
            check_files(preset, folders)
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
    content = read_yaml(file, MAX_VALUES)
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


def _compose(
    preset: str, overrides: Sequence[str], folders: Sequence[Path], label: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the composed values, and the settings over which the preset holds a sweep."""
    from hydra import compose
    from omegaconf import OmegaConf, open_dict

    with opened_hydra(label, folders):
        config = compose(None, _arguments(preset, overrides, folders), return_hydra_config=True)
        swept = config.hydra.sweeper.get("params") or {}
        with open_dict(config):
            del config["hydra"]
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, [setting_of(str(name)) for name in swept]


def _written_last(
    preset: str, overrides: Sequence[str], folders: Sequence[Path], label: str, settings: Collection[str]
) -> str | None:
    """Return which of some settings, of which only one may be given, the last file that gives one of them gives.

    A setting beside another counts only if it is not 0: a run stores both. None = no file gives any.

    Raises:
        UserError: a file gives several.
    """
    from hydra.types import RunMode

    with opened_hydra(label, folders) as hydra:
        files = hydra.config_loader.compute_defaults_list(None, _arguments(preset, overrides, folders), RunMode.RUN)
    last = None
    for each in files.defaults:
        path = next((path for folder in folders if (path := folder / f"{each.config_path}.yaml").exists()), None)
        if path is None:  # Hydra's own
            continue
        prefix, content = f"{each.package}." if each.package else "", read_yaml(path, MAX_VALUES)
        named = [name for name in settings if name.startswith(prefix)]
        found = {name: value for name in named if (value := _at(content, name.removeprefix(prefix))) is not None}
        chosen = [name for name in found if len(found) == 1 or found[name]]
        if len(chosen) > 1:
            raise UserError(f"{path}: {' and '.join(chosen)} are given; give one of the two")
        last = chosen[0] if chosen else last
    return last


def _at(values: Any, setting: str) -> Any:
    """Return the value of a setting `a.b.c` in nested dictionaries, or None."""
    for name in setting.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _arguments(preset: str, overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the overrides that Hydra composes a preset from."""
    group, _, name = preset.rpartition("/")
    # Choosing the preset as a group option with package _global_ puts its content at the top without a header
    # in the file; files can then begin with their command, and a preset can build on another of its group.
    arguments = [f"+{group}@_global_={quoted(name)}", *overrides]
    if len(folders) > 1:
        arguments.append(f"hydra.searchpath={quoted(tuple(f'file://{folder}' for folder in folders[1:]))}")
    return arguments
