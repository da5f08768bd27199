"""Whether a directory holds the run that is about to start: same kind, same configuration, same inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.files import read_yaml
from calmctl.runs.record import CONFIG_FILE, LOCK_FILE, PROGRESS_FILE, RUN_FILE, Kind, RunInfo, read_run
from calmctl.schema import to_dict

_SHOWN_DIFFERENCES = 3
# Settings that say how a run is computed, or which further runs go with it: a run may go on with another value.
NOT_IDENTITY = frozenset(
    {"sharding", "keep_states", "ablations", "jobs", "self_check", "stop_when_worse", "trust_remote_code"}
)


def existing_run(
    path: Path, kind: Kind, config: object, inputs: Mapping[str, str], changeable: Collection[str] = ()
) -> RunInfo | None:
    """Return the run at `path`, or None where a new one can begin.

    Args:
        changeable: settings that may be others than those of the run.

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
    _refuse_other_run(existing, kind, _without(to_dict(config), changeable), inputs, changeable)
    return existing


def config_sha256(config: object, changeable: Collection[str] = ()) -> str:
    """Return the checksum that identifies a configuration, whatever the order of its keys."""
    settings = _identifying(_without(to_dict(config), changeable))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _identifying(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that do not identify a run."""
    kept = {key: value for key, value in settings.items() if key not in NOT_IDENTITY}
    return {key: _identifying(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _made_nothing(run: RunInfo) -> bool:
    """Tell whether a run failed before it made anything, on a wrong path say: its folder is as good as new."""
    ours = {LOCK_FILE, CONFIG_FILE, RUN_FILE, PROGRESS_FILE, "unfinished.json"}
    return run.status == "failed" and all(entry.name in ours for entry in run.path.iterdir())


def _refuse_foreign_folder(path: Path) -> None:
    """Allow a new folder, an empty one, and what a start that was killed at once leaves behind."""
    ours = {LOCK_FILE, CONFIG_FILE}
    foreign = [entry.name for entry in path.iterdir() if entry.name not in ours] if path.exists() else []
    foreign = [name for name in foreign if not (name.startswith(".") and name.endswith(".tmp"))]
    if foreign:
        example = sorted(foreign)[0]
        raise UserError(f"{path} holds {example!r} and is no run directory; choose an empty or a new --out")


def has_settings(run: RunInfo, config: object, changeable: Collection[str] = (), root: Path | None = None) -> bool:
    """Tell whether a run was started with these settings, by its checksum or by its `config.yaml`.

    Args:
        changeable: settings that may be others.
        root: a folder that may have been moved since, as a whole, with everything that settings name below it.
    """
    settings = _without(to_dict(config), changeable)
    if run.facts.get("config_sha256") == config_sha256(settings):
        return True
    old = read_settings(run.path)
    if old is None:
        return False
    old = {key: value for key, value in old.items() if key.partition(".")[0] not in changeable}
    new = _flat(settings)
    return old == new or (root is not None and _is_moved(old, new, root))


def _is_moved(old: Mapping[str, Any], new: Mapping[str, Any], root: Path) -> bool:
    """Tell whether settings become the old ones where one other folder takes the place of `root` in all of them."""
    for key, value in new.items():
        for before, after in zip(_listed(old.get(key)), _listed(value), strict=False):
            if isinstance(before, str) and isinstance(after, str) and after.startswith(f"{root}/"):
                former = before.removesuffix(after.removeprefix(str(root)))
                start, earlier = (json.dumps(f"{folder}/")[:-1] for folder in (root, former))
                return bool(json.loads(json.dumps(new).replace(start, earlier)) == old)
    return False


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def refuse_other_settings(path: Path, config: object) -> None:
    """Raise UserError where `path` holds a run that was started with other settings."""
    if (path / RUN_FILE).exists() and not _made_nothing(existing := read_run(path)):
        _refuse_other_settings(existing, to_dict(config), ())


def _refuse_other_run(
    existing: RunInfo, kind: Kind, settings: Mapping[str, Any], inputs: Mapping[str, str], changeable: Collection[str]
) -> None:
    if existing.kind != kind:
        raise UserError(f"{existing.path} holds a run of kind {existing.kind}, not {kind}; choose another --out")
    _refuse_other_settings(existing, settings, changeable)
    old = existing.facts.get("inputs") or {}
    changed = sorted(name for name in {*old, *inputs} if old.get(name) != inputs.get(name))
    if changed:
        names = ", ".join(changed)
        raise UserError(f"{existing.path} was started on other inputs (changed: {names}); choose another --out")


def _refuse_other_settings(existing: RunInfo, settings: Mapping[str, Any], changeable: Collection[str]) -> None:
    if not has_settings(existing, settings, changeable):
        differences = _differences(existing.path, settings, changeable)
        raise UserError(
            f"{existing.path} was started with another configuration ({differences}); "
            "use the old settings to resume it, or choose another --out"
        )


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings of a run that identify it, `a.b.c` -> value; None where its file is missing or damaged."""
    try:
        return _flatten(_identifying(read_yaml(folder / CONFIG_FILE) or {}))
    except (UserError, AttributeError):
        return None


def shown_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say which settings differ: `key: old -> new`, the first three; empty where none does."""
    missing = "(not set)"
    pairs = {key: (old.get(key, missing), new.get(key, missing)) for key in [*old, *new]}
    changed = [f"{key}: {before} -> {after}" for key, (before, after) in pairs.items() if before != after]
    shown = changed[:_SHOWN_DIFFERENCES]
    rest = len(changed) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def _differences(folder: Path, new: Mapping[str, Any], changeable: Collection[str]) -> str:
    old = read_settings(folder)
    if old is None:
        return f"{CONFIG_FILE} is missing or damaged, so it cannot be said which settings"
    old = {key: value for key, value in old.items() if key.partition(".")[0] not in changeable}
    return shown_differences(old, _flat(new))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as `read_settings` reads them."""
    return _flatten(_identifying(json.loads(json.dumps(settings))))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
