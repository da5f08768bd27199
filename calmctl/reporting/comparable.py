"""Which folders of reproductions may be averaged: of one kind and of the same settings, and one a seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.results import Results
from calmctl.runs.identity import differences, former_folder, read_settings, shown
from calmctl.runs.record import CONFIG_FILE

# Settings, wherever they stand, in which results of version 0.1.0 may differ, which do not say so themselves.
_MAY_DIFFER = ("seed", "jobs", "threads")


def require_one(what: str, names: Iterable[str]) -> None:
    """Raise UserError unless all folders have the same of something, say of presets."""
    if len(different := sorted(set(names))) > 1:
        raise UserError(
            f"the folders are of different {what} ({', '.join(different)}); average seeds of one preset only"
        )


def require_one_a_seed(results: Sequence[Results]) -> None:
    """Raise UserError where two of the folders are of one seed, or differ in more than it and what may differ.

    One may have been asked more tasks, or be compared with more: what several hold is averaged.
    """
    first: dict[int | None, Results] = {}
    for each in results:
        if each.seed in first:
            raise UserError(
                f"{first[each.seed].folder} and {each.folder} are both of seed {each.seed}; name one folder a seed"
            )
        first[each.seed] = each
    pairs = [(one, other, "") for one, other in combinations(first.values(), 2)]
    # Folders of a version before hold a run of their own for their ablations, of which one may have more.
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
    """Return from where the places that settings name are seen: published results are no run."""
    return former_folder(found.run) if found.run is not None else found.folder


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_settings(folder)
    if settings is None:
        raise UserError(
            f"{folder}/{CONFIG_FILE}: missing or damaged, so it cannot be said whether the folders differ in their "
            "seed only; restore it, or leave the folder out"
        )
    return settings
