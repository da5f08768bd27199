"""A figure over several seeds: its mean and standard deviation."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


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
