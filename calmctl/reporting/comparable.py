"""Which folders of reproductions may be averaged: of one kind, and one a seed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from calmctl.errors import UserError


def require_one(what: str, names: Iterable[str]) -> None:
    """Raise UserError unless all folders have the same of something, say of presets."""
    if len(different := sorted(set(names))) > 1:
        raise UserError(
            f"the folders are of different {what} ({', '.join(different)}); average seeds of one preset only"
        )


def require_one_a_seed(folders: Iterable[tuple[int | None, Path]]) -> None:
    """Raise UserError where two of the folders are of one seed."""
    first: dict[int | None, Path] = {}
    for seed, folder in folders:
        if seed in first:
            raise UserError(f"{first[seed]} and {folder} are both of seed {seed}; name one folder a seed")
        first[seed] = folder
