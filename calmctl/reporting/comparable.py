"""Which folders of reproductions may be averaged: of one kind and of the same settings, and one a seed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.run_identity import read_settings, shown_differences
from calmctl.run_info import CONFIG_FILE

# Settings that change no figure, beside the seed itself: how the work is shared out, and where data lies.
_MAY_DIFFER = frozenset({"seed", "threads", "benchmarks", "data_folder", "dataset", "tests"})
# What a folder holds figures of; those that several hold are alike all the same.
_HOW_MUCH = frozenset({"compare", "tasks"})


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
    settings = {folder: _settings(folder) for folder in first.values()}
    unshared = _unshared_tasks(list(settings.values()))
    kept = {folder: _compared(found, unshared) for folder, found in settings.items()}
    (some, others), *rest = kept.items()
    for folder, found in rest:
        if differences := shown_differences(others, found):
            raise UserError(
                f"{some} and {folder} differ in more than their seed ({differences}); average seeds of one "
                "configuration only"
            )


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_settings(folder)
    if settings is None:
        raise UserError(
            f"{folder}/{CONFIG_FILE}: missing or damaged, so it cannot be said whether the folders differ in their "
            "seed only; restore it, or leave the folder out"
        )
    return settings


def _unshared_tasks(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the tasks that settings configure and that not all of these folders were asked."""
    configured = {key.removesuffix(".task") for each in settings for key in each if key.endswith(".task")}
    asked = [set(each["tasks"]) for each in settings if "tasks" in each]
    return configured - set.intersection(*asked) if asked else set()


def _compared(settings: Mapping[str, Any], unshared: Collection[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings.items()
        if key not in _HOW_MUCH and key.rpartition(".")[2] not in _MAY_DIFFER and key.partition(".")[0] not in unshared
    }
