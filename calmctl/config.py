"""Presets: compose a YAML preset and overrides into a frozen dataclass, and list what presets exist.

Composition is Hydra's compose API over the packaged `calmctl.conf` and, searched first, the user's folder.
A preset `data/kv/tiny` is the file `data/kv/tiny.yaml`; its content lands at the top of the configuration, so
preset files need no `# @package` header. No OmegaConf object leaves this module.
"""

from __future__ import annotations

import importlib.util
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from calmctl.errors import UserError
from calmctl.opened_hydra import one_line, opened_hydra, quoted
from calmctl.schema import field_types, from_dict, nested_schema, to_dict, unknown_key
from data_builders.files import read_text
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


@dataclass(frozen=True)
class Preset:
    """A configuration a user can run by name."""

    name: str
    """Group and file, for example `data/kv/tiny`."""
    group: str
    """Folder the preset lives in, for example `data/kv`."""
    command: str
    """First comment line of the file: the command that runs it."""
    description: str
    """The comment that follows the command, as one line; the command where there is none."""
    path: Path


def load_config(schema: type[T], preset: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> T:
    """Compose `preset` with Hydra `overrides` and return it as `schema`, a (nested) frozen dataclass.

    A setting that the schema knows can be overridden whether or not the preset mentions it.

    Raises:
        UserError: unknown preset, key or group; malformed override; value of the wrong type or out of range.
    """
    folders = _config_folders(config_dir)
    _check_preset(preset, config_dir)
    if config_dir is not None:
        _check_files(preset, folders)
    prepared = _prepare_overrides(schema, overrides, folders)
    return from_dict(schema, _compose(preset, prepared, folders))


@contextmanager
def sweeping(
    preset: str, overrides: Sequence[str], config_dir: Path | None = None
) -> Iterator[tuple[Hydra, list[str]]]:
    """Open Hydra for a sweep over settings of a preset; yield it with its overrides, the preset's own one first.

    Which settings there are is not checked: whoever runs one of the sweep's jobs does.

    Raises:
        UserError: unknown preset or malformed override; also where Hydra, a sweeper or a launcher refuses something.
    """
    folders = _config_folders(config_dir)
    _check_preset(preset, config_dir)
    if config_dir is not None:
        _check_files(preset, folders)
    arguments = _arguments(preset, _prepare_overrides(None, overrides, folders), folders)
    with opened_hydra("--multirun", folders) as hydra:
        yield hydra, arguments


def to_yaml(config: object) -> str:
    """Return `config` (a dataclass or a mapping) as YAML, keys in order of declaration."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def list_presets(config_dir: Path | None = None) -> list[Preset]:
    """Return every preset, sorted by name; one in `config_dir` hides a packaged one of the same name."""
    found: dict[str, Preset] = {}
    for folder in reversed(_config_folders(config_dir)):
        for path in folder.glob("*/**/*.yaml"):
            name = path.relative_to(folder).with_suffix("").as_posix()
            found[name] = _read_preset(name, path)
    return [found[name] for name in sorted(found)]


def conf_dir() -> Path:
    """Return the folder of the packaged presets.

    Raises:
        UserError: the presets are neither installed nor beside the package in a checkout.
    """
    root = Path(__file__).resolve().parents[1]
    # A checkout uses its own presets, even if another checkout is installed.
    if (root / "pyproject.toml").is_file() and (root / "conf").is_dir():
        return root / "conf"
    spec = importlib.util.find_spec("calmctl.conf")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    raise UserError(
        f"the presets are missing: neither the package calmctl.conf nor {root / 'conf'} exists; reinstall calmctl"
    )


def _config_folders(config_dir: Path | None) -> list[Path]:
    """Return the folders to search, the user's first."""
    if config_dir is None:
        return [conf_dir()]
    if not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder")
    return [config_dir.resolve(), conf_dir()]


def _read_preset(name: str, path: Path) -> Preset:
    comments: list[str] = []
    try:
        lines = read_text(path).split("\n")
    except UserError as error:
        return Preset(name, name.rpartition("/")[0], "", str(error), path)
    for line in lines:
        text = line.strip()
        if not text.startswith("#"):
            break
        text = text.lstrip("#").strip()
        if not text.startswith("@package"):
            comments.append(text)
    command = comments[0] if comments else ""
    return Preset(name, name.rpartition("/")[0], command, " ".join(comments[1:]).strip() or command, path)


def _check_preset(preset: str, config_dir: Path | None) -> None:
    presets = list_presets(config_dir)
    if any(preset == known.name for known in presets):
        return
    group, _, name = preset.rpartition("/")
    choices = [known.name.rpartition("/")[2] for known in presets if known.group == group]
    if choices:
        listed = ", ".join(choices)
        raise UserError(f"unknown preset {name!r}; choices in {group}: {listed} (--config-dir adds yours)")
    groups = sorted({known.group for known in presets})
    raise UserError(f"unknown preset {preset!r}: no group {group!r}; groups: {', '.join(groups) or 'none'}")


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


def _prepare_overrides(schema: type | None, overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Check the keys of value overrides, and let them set settings that the preset does not mention.

    Args:
        schema: the settings there are; None for a sweep, whose overrides may have several values.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    prepared = []
    for text in overrides:
        if len(text) > _MAX_CHARACTERS:
            advice = f"{len(text):,} characters are too many; write it into a preset (--config-dir)"
            raise UserError(f"override {text[:30]!r}...: {advice}")
        try:
            override = OverridesParser.create().parse_override(text)
        except (HydraException, RecursionError) as error:
            raise UserError(f"override {text[:200]!r}: {one_line(error)} (write key=value)") from error
        if schema is not None and override.is_sweep_override():
            advice = "write key=[a,b] for a list, key='a,b' for text; --multirun trains once for each value"
            raise UserError(f"override {text!r}: one value; {advice}")
        if _is_group_override(override, folders):
            if len(folders) > 1 and isinstance(choice := override.value(), str):
                _check_files(f"{override.key_or_group}/{choice}", folders)
            prepared.append(text)
            continue
        if schema is not None:
            _check_key(schema, override.key_or_group, text)
        prepared.append(f"++{text}" if override.type is OverrideType.CHANGE else text)
    return prepared


def _is_group_override(override: Override, folders: Sequence[Path]) -> bool:
    key = override.key_or_group
    if "/" in key or override.package is not None or key.startswith("hydra."):
        return True
    is_choice = isinstance(override.value(), str) or override.is_choice_sweep()
    return any((folder / key).is_dir() for folder in folders) and is_choice


def _check_key(schema: type, key: str, text: str) -> None:
    """Walk the dotted `key` down `schema`; below a dictionary anything goes."""
    level: type | None = schema
    parts = key.split(".")
    for i, part in enumerate(parts):
        if level is None:
            parent = ".".join(parts[:i])
            raise UserError(f"override {text!r}: {parent} is one value, it has no setting {part!r}")
        fields = field_types(level)
        if part not in fields:
            raise unknown_key(".".join(parts[: i + 1]), list(fields))
        level = nested_schema(fields[part])
        if level is None and "dict" in str(fields[part]).lower():
            return


def _compose(preset: str, overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    from hydra import compose
    from omegaconf import OmegaConf

    with opened_hydra(f"preset {preset}", folders):
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
