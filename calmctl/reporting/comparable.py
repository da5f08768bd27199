"""Which folders of reproductions may be averaged: of one kind and of the same settings, and one a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.runs.identity import differences, former_folder, read_settings, shown
from calmctl.runs.record import CONFIG_FILE, RUN_FILE, read_run

# Settings that change no figure, beside the seed itself: how the work is shared out, where data lies, and how much was
# asked for (a folder of several bridge seeds counts as one run, their mean).
_MAY_DIFFER = frozenset({
    "seed", "threads", "benchmarks", "data_folder", "dataset", "tests", "allow_code_execution",
    "compare", "tasks", "num_bridge_seeds", "num_control_seeds", "ablate", "ablations", "jobs", "sharding",
    "keep_states", "self_check", "stop_when_worse", "trust_remote_code",
})  # fmt: skip
# Settings that only those depend on that are named in another one.
_ONLY_OF = {"codexglue_data": ("tasks", "codexglue"), "vanilla_aug": ("compare", "vanilla_aug")}


def require_one(what: str, names: Iterable[str]) -> None:
    """Raise UserError unless all folders have the same of something, say of presets."""
    if len(different := sorted(set(names))) > 1:
        raise UserError(
            f"the folders are of different {what} ({', '.join(different)}); average seeds of one preset only"
        )


def require_one_a_seed(folders: Sequence[tuple[int | None, Path]]) -> None:
    """Raise UserError where two of the folders are of one seed, or differ in more than it.

    One may have been asked more tasks, or be compared with more: what several hold is averaged.
    """
    first: dict[int | None, Path] = {}
    for seed, folder in folders:
        if seed in first:
            raise UserError(f"{first[seed]} and {folder} are both of seed {seed}; name one folder a seed")
        first[seed] = folder
    if len(first) == 1:
        return
    settings = {folder: _settings(folder) for folder in first.values()}
    for (some, ours), (other, theirs) in combinations(settings.items(), 2):
        here, there = (_started_in(folder) for folder in (some, other))
        left, right = _compared(ours, theirs)
        if found := differences(left, right, (), here, there):
            raise UserError(
                f"{some} and {other} differ in more than their seed ({shown(found)}); average seeds of one "
                "configuration only"
            )
    # Folders of a version before hold a run of their own for their ablations.
    ablations = [(seed, path / "ablations") for seed, path in folders if (path / "ablations" / CONFIG_FILE).exists()]
    if ablations:
        require_one_a_seed(ablations)


def _started_in(folder: Path) -> Path:
    """Return from where the places that settings name are seen: published results are no run."""
    return former_folder(read_run(folder)) if (folder / RUN_FILE).exists() else folder


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_settings(folder)
    if settings is None:
        raise UserError(
            f"{folder}/{CONFIG_FILE}: missing or damaged, so it cannot be said whether the folders differ in their "
            "seed only; restore it, or leave the folder out"
        )
    return settings


def _compared(*settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what of the settings of two folders has to be the same, as figures depend on it that both have."""

    def in_both(setting: str, value: str) -> bool:
        return all(value in each.get(setting, ()) for each in settings)

    # `eval` is the one evaluation of the key-value experiment, which is always asked.
    asked = {key.removesuffix(".task") for each in settings if "tasks" in each for key in each if key.endswith(".task")}
    tasks = asked - {"eval"}
    left_out = {task for task in tasks if not in_both("tasks", task)}
    left_out |= {name for name, (setting, value) in _ONLY_OF.items() if not in_both(setting, value)}
    return [
        {
            key: value
            for key, value in each.items()
            if not _MAY_DIFFER & {*key.split(".")} and key.partition(".")[0] not in left_out
        }
        for each in settings
    ]
