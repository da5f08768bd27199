"""Presets: the YAML files that a user can run by name, packaged or in a folder of one's own."""

from __future__ import annotations

import importlib.util
import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from data_builders.files import read_text, write_text
from data_builders.values import read_yaml

MAX_VALUES = 10_000
"""In a preset: Hydra would take minutes over more."""
_GROUP = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]*(/[a-zA-Z_][a-zA-Z0-9_-]*)*")


@dataclass(frozen=True)
class Preset:
    """A configuration a user can run by name."""

    name: str
    """Group and file, for example `data/kv/tiny`."""
    group: str
    """Folder the preset lives in, for example `data/kv`."""
    command: str
    """First comment line of the file, if it is the command that runs it; else empty."""
    description: str
    """The comment that follows the command, as one line; the command where there is none."""
    path: Path


def list_presets(config_dir: Path | None = None) -> list[Preset]:
    """Return every preset, sorted by name; one in `config_dir` hides a packaged one of the same name."""
    found: dict[str, Preset] = {}
    for folder in reversed(config_folders(config_dir)):
        for path in folder.glob("*/**/*.yaml"):
            name = path.relative_to(folder).with_suffix("").as_posix()
            found[name] = _read_preset(name, path)
    return [found[name] for name in sorted(found)]


def find_preset(preset: str, config_dir: Path | None = None) -> Preset:
    """Return the preset of this name; raises UserError, with the choices, if there is none."""
    presets = list_presets(config_dir)
    for known in presets:
        if preset == known.name:
            return known
    group, _, name = preset.rpartition("/")
    choices = [known.name.rpartition("/")[2] for known in presets if known.group == group]
    if choices:
        listed = ", ".join(choices)
        raise UserError(f"unknown preset {name!r}; choices in {group}: {listed} (--config-dir adds yours)")
    groups = sorted({known.group for known in presets})
    raise UserError(f"unknown preset {preset!r}: no group {group!r}; groups: {', '.join(groups) or 'none'}")


def check_group(group: str) -> None:
    """Raise UserError for a folder of presets whose name Hydra does not take for a group."""
    if not _GROUP.fullmatch(group):
        advice = "name its folders with letters, digits, - and _ only, or give the file itself (--config)"
        raise UserError(f"--preset: {group!r} cannot be a group of presets; {advice}")


def check_files(preset: str, folders: Sequence[Path], after: tuple[str, ...] = ()) -> None:
    """Raise UserError for a file that Hydra cannot read: the preset's, or that of a preset it builds on."""
    if preset in after:
        raise UserError(f"preset {after[0]} builds on itself ({' -> '.join((*after, preset))}); correct its defaults")
    path = next((path for folder in folders if (path := folder / f"{preset}.yaml").exists()), None)
    if path is None:
        return  # Hydra says which presets there are
    content = read_yaml(path, MAX_VALUES)
    if not isinstance(content, dict | None):
        raise UserError(f"{path}: is a {type(content).__name__}, not settings; write NAME: VALUE")
    for other in _defaults(content or {}, posixpath.dirname(preset)):
        check_files(other, folders, (*after, preset))


def _defaults(content: dict[str, Any], group: str) -> Iterator[str]:
    """Yield the presets in the defaults list of a preset of `group`."""
    listed = content.get("defaults")
    for entry in listed if isinstance(listed, list) else []:
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            folder = re.sub(r"^((optional|override) +)*|@.*", "", str(key))
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str) and name != "_self_":
                    yield posixpath.join("/", group, folder, name.partition("@")[0]).lstrip("/")


def copy_preset(name: str, file: Path, group: str, config_dir: Path | None = None) -> str:
    """Copy a preset to a new file, and return the command that runs the copy, which is the file's first line.

    Args:
        group: folder of the presets of the command. If the file is in a folder of that name, the copy is a preset
            there (`--config-dir`); anywhere else it is a file of settings (`--config`).

    Raises:
        UserError: there is no such preset or it is damaged, or the file exists or is no `.yaml` file.
    """
    preset = find_preset(name, config_dir)
    if file.suffix != ".yaml":
        raise UserError(f"{file}: a preset is a .yaml file; give it a name that ends so")
    if file.exists():
        raise UserError(f"{file}: there is such a file already; choose another name, or delete it")
    arguments, folder = _as_arguments(file, group)
    if config_dir is not None and "--config" in arguments:
        arguments += ["--config-dir", str(config_dir)]  # it may build on presets there
    command = _with_source(preset.command or f"calmctl {group.replace('/', ' ')}", arguments)
    text = read_text(preset.path)
    if folder != preset.group:
        text = _with_full_names(text, preset)
    write_text(file, text.replace(preset.command, command, 1) if preset.command else f"# {command}\n{text}")
    return command


def _as_arguments(file: Path, group: str) -> tuple[list[str], str]:
    """Return the options that choose a file of settings, and the folder in which Hydra sees it."""
    parts, wanted = file.parent.parts, tuple(group.split("/"))
    for start in reversed(range(len(parts) - len(wanted) + 1)):
        if parts[start : start + len(wanted)] == wanted:
            name = Path(*parts[start + len(wanted) :], file.stem).as_posix()
            folder = Path(*parts[start:]).as_posix()
            if not _GROUP.fullmatch(folder):
                break
            return ["--config-dir", str(Path(*parts[:start])), "--preset", name], folder
    return ["--config", str(file)], group


def _with_full_names(text: str, preset: Preset) -> str:
    """Return the text of a preset with full names of the presets it builds on; without, they are in its own folder."""
    import yaml

    content = read_yaml(preset.path)
    if not isinstance(content, dict) or not isinstance(content.get("defaults"), list):
        return text
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    listed = next(value.value for key, value in root.value if key.value == "defaults")
    for entry in reversed(listed):
        is_group = isinstance(entry, yaml.MappingNode)
        node = entry.value[0][0] if is_group else entry
        words, name = re.findall(r"^((?:(?:optional|override) +)*)(.*)", node.value)[0]
        if name.startswith("/") or name == "_self_":
            continue
        package = "" if "@" in name else f"@{name.replace('/', '.')}" if is_group else "@_here_"
        full = f"{words}/{preset.group}/{name}{package}"
        text = f"{text[: node.start_mark.index]}{full}{text[node.end_mark.index :]}"
    return text


def _with_source(command: str, arguments: Sequence[str]) -> str:
    """Return a command with other options that choose its settings."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed
        words = command.split()
    for option in ("--preset", "-p", "--config", "--config-dir"):
        if option in words:
            del words[(place := words.index(option)) : place + 2]
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return shlex.join([*words[:first], *arguments, *words[first:]])


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


def config_folders(config_dir: Path | None) -> list[Path]:
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
    command = comments.pop(0) if comments and comments[0].startswith("calmctl ") else ""
    return Preset(name, name.rpartition("/")[0], command, " ".join(comments).strip() or command, path)
