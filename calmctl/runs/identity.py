"""Identity: whether a directory holds the run that is about to start (same kind, configuration and inputs).

The metadata of a setting's field says whether the setting counts (`schema.meaning`). Absolute paths are compared
relative to the run's folder, so that folders that belong together can be moved together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.runs.record import CONFIG_FILE, LOCK_FILE, PROGRESS_FILE, RUN_FILE, Kind, RunInfo, read_run
from calmctl.schema import changeable_settings, default_settings, growing_settings, settings_of_before, to_dict
from data_builders.values import read_yaml

_SHOWN_DIFFERENCES = 3
_MISSING = "(not set)"
Differences = Mapping[str, tuple[Any, Any]]


def existing_run(
    path: Path, kind: Kind, config: object, inputs: Mapping[str, str], may_grow: bool = False
) -> RunInfo | None:
    """Return the run at `path`, or None if a new one can start there.

    Args:
        may_grow: accept a run that `config` extends (see `growth`).

    Raises:
        UserError: `path` is a file, or holds another run or something that is no run.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; --out needs a folder")
    if not (path / RUN_FILE).exists():
        _refuse_foreign_folder(path)
        return None
    existing = read_run(path)
    if _made_nothing(existing):
        return None
    if existing.kind != kind:
        raise UserError(f"{existing.path} holds a run of kind {existing.kind}, not {kind}; choose another --out")
    if not (may_grow and growth(existing, config)):
        _refuse_other_settings(existing, config)
    old = existing.facts.get("inputs") or {}
    if changed := sorted(name for name in {*old, *inputs} if old.get(name) != inputs.get(name)):
        names = ", ".join(changed)
        raise UserError(f"{existing.path} was started on other inputs (changed: {names}); choose another --out")
    return existing


def refuse_other_settings(path: Path, config: object) -> None:
    """Raise UserError if `path` holds a run that was started with other settings."""
    if (path / RUN_FILE).exists() and not _made_nothing(existing := read_run(path)):
        _refuse_other_settings(existing, config)


def growth(run: RunInfo, config: object) -> dict[str, Any]:
    """Return the settings by which a configuration extends a run (more steps, say), with their values in the run.

    Empty if nothing differs, or anything but larger values of settings that may grow (`schema.meaning`).
    """
    found, growing = _differences(run, config) or {}, set(growing_settings(config))
    if all(key in growing and _is_less(*pair) for key, pair in found.items()):
        return {key: before for key, (before, _) in found.items()}
    return {}


def _is_less(before: Any, after: Any) -> bool:
    return isinstance(before, int | float) and before < after


def has_settings(run: RunInfo, config: object, comparisons: bool = False) -> bool:
    """Tell whether a run was started with these settings, by its checksum or by its `config.yaml`.

    Args:
        comparisons: also compare settings that only say what is compared.
    """
    if not comparisons and run.facts.get("config_sha256") == config_sha256(config):
        return True
    return _differences(run, config, comparisons) == {}


def config_sha256(config: object) -> str:
    """Return the checksum of a configuration's identifying settings, whatever the order of its keys."""
    settings = _without(to_dict(config), set(changeable_settings(config)))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _without(settings: Mapping[str, Any], paths: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return settings without those at some dotted paths."""
    kept = {name: value for name, value in settings.items() if prefix + name not in paths}
    return {
        name: _without(value, paths, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in kept.items()
    }


def _made_nothing(run: RunInfo) -> bool:
    """Tell whether a run failed before it wrote results (at a wrong path, say), so that its folder can be reused."""
    ours = {LOCK_FILE, CONFIG_FILE, RUN_FILE, PROGRESS_FILE}
    return run.status == "failed" and all(entry.name in ours for entry in run.path.iterdir())


def _refuse_foreign_folder(path: Path) -> None:
    """Raise UserError unless a folder is new, empty, or left behind by a start that was killed at once."""
    ours = {LOCK_FILE, CONFIG_FILE}
    foreign = [entry.name for entry in path.iterdir() if entry.name not in ours] if path.exists() else []
    foreign = [name for name in foreign if not (name.startswith(".") and name.endswith(".tmp"))]
    if foreign:
        example = sorted(foreign)[0]
        raise UserError(f"{path} holds {example!r} and is no run directory; choose an empty or a new --out")


def _refuse_other_settings(existing: RunInfo, config: object) -> None:
    if has_settings(existing, config):
        return
    found = _differences(existing, config)
    if found and all(before == _MISSING for before, _ in found.values()):
        raise UserError(
            f"{existing.path} was started by an earlier version of calmctl, which had no {', '.join(found)}; choose "
            "another --out"
        )
    unknown = f"{CONFIG_FILE} is missing or damaged, so it cannot be said which settings"
    raise UserError(
        f"{existing.path} was started with another configuration ({unknown if found is None else shown(found)}); "
        "use the old settings to resume it, or choose another --out"
    )


def _differences(run: RunInfo, config: object, comparisons: bool = False) -> Differences | None:
    """Return the identifying settings in which a run differs from a configuration; None if its own are unreadable."""
    if (old := read_settings(run.path)) is None:
        return None
    new = _flatten(json.loads(json.dumps(to_dict(config))))
    left_out = list(changeable_settings(config, comparisons=not comparisons))
    found = differences(old, new, left_out, former_folder(run), run.path)
    # Settings that are newer than the run had no other value in it than their default, or what they say of before.
    defaults, of_before = {f"{name}." for name in default_settings(config)}, settings_of_before(config)

    def is_newer(key: str) -> bool:
        if key in of_before and any(name.startswith(key[: key.rfind(".") + 1]) for name in old):
            return of_before[key]
        return any(f"{key}.".startswith(name) for name in defaults)

    return {key: pair for key, pair in found.items() if pair[0] != _MISSING or not is_newer(key)}


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings of a run, `a.b.c` -> value; None if its file is missing or damaged."""
    try:
        return _flatten(read_yaml(folder / CONFIG_FILE) or {})
    except (UserError, AttributeError):
        return None


def former_folder(run: RunInfo) -> Path:
    """Return the folder that a run was started in; its present folder if unknown."""
    if folder := run.facts.get("folder"):
        return Path(folder)
    # Runs of version 0.1.0 lack the entry, but the commands of stages, whose settings hold paths, have `--out`.
    command = run.facts.get("command") or []
    out = dict(zip(command, command[1:], strict=False)).get("--out", "")
    return Path(out) if os.path.isabs(out) else run.path


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], left_out: Collection[str], old_folder: Path, new_folder: Path
) -> Differences:
    """Return the settings in which two runs differ, with both values.

    Args:
        left_out: settings, or groups of settings, that may differ.
        old_folder, new_folder: absolute paths in the settings are compared relative to these.
    """
    folders = (old_folder.resolve(), new_folder.resolve())
    pairs = {key: (old.get(key, _MISSING), new.get(key, _MISSING)) for key in [*old, *new]}
    return {
        key: pair
        for key, pair in pairs.items()
        if not any(f"{key}.".startswith(f"{name}.") for name in left_out) and not _is_same(*pair, *folders)
    }


def _is_same(old: Any, new: Any, old_folder: Path, new_folder: Path) -> bool:
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            _is_same(*pair, old_folder, new_folder) for pair in zip(old, new, strict=True)
        )
    are_places = isinstance(old, str) and isinstance(new, str) and os.path.isabs(old) and os.path.isabs(new)
    return bool(old == new) or (are_places and os.path.relpath(old, old_folder) == os.path.relpath(new, new_folder))


def shown(found: Differences) -> str:
    """List the first three differing settings as `key: old -> new`; empty if there are none."""
    changed = [f"{key}: {before} -> {after}" for key, (before, after) in found.items()]
    rest = len(changed) - _SHOWN_DIFFERENCES
    return ", ".join(changed[:_SHOWN_DIFFERENCES]) + (f" and {rest} more" if rest > 0 else "")


def short_names(settings: Sequence[str]) -> dict[str, str]:
    """Return `a.b.c` -> `c` for settings, or `a.b.c` itself if another one would have that name too."""
    last = Counter(setting.rpartition(".")[2] for setting in dict.fromkeys(settings))
    return {each: each if last[each.rpartition(".")[2]] > 1 else each.rpartition(".")[2] for each in settings}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
