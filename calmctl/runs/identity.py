"""Whether a directory holds the run that is about to start: same kind, same configuration, same inputs.

What a setting means to that is metadata of its field (`schema.meaning`). One that names a place is the same where it
names the same place as seen from the run's folder: folders that belong together can be moved together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.runs.record import CONFIG_FILE, LOCK_FILE, PROGRESS_FILE, RUN_FILE, Kind, RunInfo, read_run
from calmctl.schema import changeable_settings, to_dict
from data_builders.values import read_yaml

_SHOWN_DIFFERENCES = 3
_MISSING = "(not set)"
Differences = Mapping[str, tuple[Any, Any]]


def existing_run(path: Path, kind: Kind, config: object, inputs: Mapping[str, str]) -> RunInfo | None:
    """Return the run at `path`, or None where a new one can begin.

    Raises:
        UserError: `path` is a file, holds something that is no run, or holds another run.
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
    _refuse_other_settings(existing, config)
    old = existing.facts.get("inputs") or {}
    if changed := sorted(name for name in {*old, *inputs} if old.get(name) != inputs.get(name)):
        names = ", ".join(changed)
        raise UserError(f"{existing.path} was started on other inputs (changed: {names}); choose another --out")
    return existing


def refuse_other_settings(path: Path, config: object) -> None:
    """Raise UserError where `path` holds a run that was started with other settings."""
    if (path / RUN_FILE).exists() and not _made_nothing(existing := read_run(path)):
        _refuse_other_settings(existing, config)


def has_settings(run: RunInfo, config: object, comparisons: bool = False) -> bool:
    """Tell whether a run was started with these settings, by its checksum or by its `config.yaml`.

    Args:
        comparisons: those that only say what is compared have to be the same as well.
    """
    if not comparisons and run.facts.get("config_sha256") == config_sha256(config):
        return True
    return _differences(run, config, comparisons) == {}


def config_sha256(config: object) -> str:
    """Return the checksum that identifies a configuration, whatever the order of its keys."""
    settings = _without(to_dict(config), set(changeable_settings(config)))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _without(settings: Mapping[str, Any], paths: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return settings without those at some paths, `a.b.c`."""
    kept = {name: value for name, value in settings.items() if prefix + name not in paths}
    return {
        name: _without(value, paths, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in kept.items()
    }


def _made_nothing(run: RunInfo) -> bool:
    """Tell whether a run failed before it made anything, on a wrong path say: its folder is as good as new."""
    ours = {LOCK_FILE, CONFIG_FILE, RUN_FILE, PROGRESS_FILE}
    return run.status == "failed" and all(entry.name in ours for entry in run.path.iterdir())


def _refuse_foreign_folder(path: Path) -> None:
    """Allow a new folder, an empty one, and what a start that was killed at once leaves behind."""
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
    unknown = f"{CONFIG_FILE} is missing or damaged, so it cannot be said which settings"
    raise UserError(
        f"{existing.path} was started with another configuration ({unknown if found is None else shown(found)}); "
        "use the old settings to resume it, or choose another --out"
    )


def _differences(run: RunInfo, config: object, comparisons: bool = False) -> Differences | None:
    """Return in which identifying settings a run differs from a configuration; None where its own cannot be read."""
    if (old := read_settings(run.path)) is None:
        return None
    new = _flatten(json.loads(json.dumps(to_dict(config))))
    left_out = list(changeable_settings(config, comparisons=not comparisons))
    return differences(old, new, left_out, former_folder(run), run.path)


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings of a run, `a.b.c` -> value; None where its file is missing or damaged."""
    try:
        return _flatten(read_yaml(folder / CONFIG_FILE) or {})
    except (UserError, AttributeError):
        return None


def former_folder(run: RunInfo) -> Path:
    """Return where a run was when it was started; where it is now if it does not say."""
    if folder := run.facts.get("folder"):
        return Path(folder)
    # Runs of version 0.1.0 do not say it, but stages, which name places in their folder, say where they write.
    command = run.facts.get("command") or []
    out = dict(zip(command, command[1:], strict=False)).get("--out", "")
    return Path(out) if os.path.isabs(out) else run.path


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], left_out: Collection[str], old_folder: Path, new_folder: Path
) -> Differences:
    """Return the settings of two runs that differ, and their values in both.

    Args:
        left_out: settings that may differ, and groups of them.
        old_folder, new_folder: from where the places that settings name are seen.
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
    """Say which settings differ: `key: old -> new`, the first three; empty where none does."""
    changed = [f"{key}: {before} -> {after}" for key, (before, after) in found.items()]
    rest = len(changed) - _SHOWN_DIFFERENCES
    return ", ".join(changed[:_SHOWN_DIFFERENCES]) + (f" and {rest} more" if rest > 0 else "")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
