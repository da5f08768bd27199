"""Which folders of reproductions may be averaged: of one kind and of the same settings, and one a seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from calmctl.errors import UserError
from calmctl.run_identity import read_settings, shown_differences

# Settings that change no figure, beside the seed itself: how the work is shared out, and where data lies.
_MAY_DIFFER = frozenset({"seed", "jobs", "threads", "benchmarks", "data_folder", "dataset", "tests"})


def require_one(what: str, names: Iterable[str]) -> None:
    """Raise UserError unless all folders have the same of something, say of presets."""
    if len(different := sorted(set(names))) > 1:
        raise UserError(
            f"the folders are of different {what} ({', '.join(different)}); average seeds of one preset only"
        )


def require_one_a_seed(folders: Sequence[tuple[int | None, Path]]) -> None:
    """Raise UserError where two of the folders are of one seed, or differ in more than it."""
    first: dict[int | None, Path] = {}
    for seed, folder in folders:
        if seed in first:
            raise UserError(f"{first[seed]} and {folder} are both of seed {seed}; name one folder a seed")
        first[seed] = folder
    known = [(folder, settings) for folder in first.values() if (settings := read_settings(folder)) is not None]
    for folder, settings in known[1:]:
        shared = [
            {key: value for key, value in each.items() if key.rpartition(".")[2] not in _MAY_DIFFER}
            for each in (known[0][1], settings)
        ]
        if differences := shown_differences(*shared):
            raise UserError(
                f"{known[0][0]} and {folder} differ in more than their seed ({differences}); average seeds of one "
                "configuration only"
            )
