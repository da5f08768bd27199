"""Values that were read from files of results, checked before they are used, and figures over several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import UserError


def mapping(value: Any, path: Path) -> Mapping[str, Any]:
    """Return a mapping; raises UserError, which names the file, for anything else."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: expected names and figures, found {type(value).__name__}; restore the file")
    return value


def number(value: Any) -> float | None:
    """Return a number as a float; None for what is no number, not finite, or missing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def numbers(value: Any) -> dict[str, float]:
    """Return the numbers of a mapping, what is no number left out; none of what is no mapping."""
    found = ((str(name), number(part)) for name, part in (value if isinstance(value, Mapping) else {}).items())
    return {name: part for name, part in found if part is not None}


@dataclass(frozen=True)
class Spread:
    """One figure, a value a seed that measured it."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Return the mean, or None without values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Return the sample standard deviation (n - 1), or None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None
