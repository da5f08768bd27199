"""Checks of values read from result files, and statistics over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import UserError


def mapping(value: Any, path: Path) -> Mapping[str, Any]:
    """Return `value` if it is a mapping; otherwise raise a UserError that names the file."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: expected names and figures, found {type(value).__name__}; restore the file")
    return value


def number(value: Any) -> float | None:
    """Return a finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def numbers(value: Any) -> dict[str, float]:
    """Return the entries of a mapping that are finite numbers; empty if `value` is no mapping."""
    found = ((str(name), number(part)) for name, part in (value if isinstance(value, Mapping) else {}).items())
    return {name: part for name, part in found if part is not None}


@dataclass(frozen=True)
class Spread:
    """One figure, with a value for each seed that measured it."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Return the mean, or None without values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Return the sample standard deviation (n - 1), or None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None
