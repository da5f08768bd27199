"""Check that reproductions may be averaged: same experiment, preset and settings, and different seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.results import Results
from calmctl.runs.identity import differences, former_folder, read_settings, shown
from calmctl.runs.record import CONFIG_FILE

# Names of settings that may differ in results of version 0.1.0, which have no `may_differ`.
_MAY_DIFFER = ("seed", "jobs", "threads")


def require_one(what: str, names: Iterable[str]) -> None:
    """Raise UserError unless all names are equal; `what` says what is named, such as "presets"."""
    if len(different := sorted(set(names))) > 1:
        raise UserError(
            f"the folders are of different {what} ({', '.join(different)}); average seeds of one preset only"
        )


def require_one_a_seed(results: Sequence[Results]) -> None:
    """Raise UserError if two folders have the same seed, or differ in settings other than the seed and `may_differ`.

    Folders may differ in their tasks and comparisons: each figure is averaged over the folders that have it.
    """
    first: dict[int | None, Results] = {}
    for each in results:
        if each.seed in first:
            raise UserError(
                f"{first[each.seed].folder} and {each.folder} are both of seed {each.seed}; name one folder a seed"
            )
        first[each.seed] = each
    pairs = [(one, other, "") for one, other in combinations(first.values(), 2)]
    # Earlier versions wrote ablations as a run of their own, and folders may differ in which ablations they have.
    runs = [each for each in first.values() if (each.folder / "ablations" / CONFIG_FILE).exists()]
    pairs += [(one, other, "ablations") for one, other in combinations(runs, 2)]
    for one, other, place in pairs:
        ours, theirs = _settings(one.folder / place), _settings(other.folder / place)
        before = [key for key in ours if key.rpartition(".")[2] in _MAY_DIFFER or key.startswith(f"{place}.")]
        left_out = {*one.may_differ, *other.may_differ, *before}
        if found := differences(ours, theirs, left_out, _started_in(one), _started_in(other)):
            raise UserError(
                f"{one.folder} and {other.folder} differ in more than their seed ({shown(found)}); average seeds of "
                "one configuration only"
            )


def _started_in(found: Results) -> Path:
    """Return the folder that paths in settings are relative to; published results have no run record."""
    return former_folder(found.run) if found.run is not None else found.folder


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_settings(folder)
    if settings is None:
        raise UserError(
            f"{folder}/{CONFIG_FILE}: missing or damaged, so it cannot be said whether the folders differ in their "
            "seed only; restore it, or leave the folder out"
        )
    return settings
