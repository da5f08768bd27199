"""The adaptive curriculum: which levels examples are drawn from, given the exact match on the newest level."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from calmctl.errors import UserError
from calmctl.training.examples import Examples
from calmctl.training.settings import CurriculumSettings

SMOOTHING = 0.9


class Curriculum:
    """The current level and its running exact match, both part of every checkpoint.

    Raises:
        UserError: the examples' `meta` lacks the field, or a level has no example that may be drawn.
    """

    def __init__(self, settings: CurriculumSettings, examples: Examples) -> None:
        self.settings = settings
        self.level, self.running = settings.start, 0.0
        if settings.field not in examples.meta:
            raise UserError(
                f"curriculum.field={settings.field!r} is not in the examples' meta; there is "
                f"{', '.join(examples.meta) or 'nothing'}"
            )
        self.values = examples.meta[settings.field]
        if not np.issubdtype(self.values.dtype, np.number) or not np.isfinite(self.values).all():
            raise UserError(f"curriculum.field={settings.field!r}: not all rows have a number there")
        kinds = examples.meta.get("kind")
        self.held_back = kinds == settings.held_back_kind if kinds is not None else np.zeros(len(examples), dtype=bool)
        if missing := [level for level in self._levels() if not self._drawable(level).any()]:
            but = f" but those of the held-back kind {settings.held_back_kind!r}" if self.held_back.any() else ""
            raise UserError(f"curriculum: there are no examples with {settings.field} = {missing}{but}")

    def _drawable(self, level: int) -> NDArray[np.bool_]:
        """Return the mask (n,) of the examples that count for a level: no held-back ones before they are drawn."""
        settings = self.settings
        is_held_back = self.held_back & (level < max(settings.held_back_until, settings.stop))
        return (self.values == level) & ~is_held_back

    def _levels(self) -> list[int]:
        return list(range(self.settings.start, self.settings.stop + 1))

    def shares(self) -> dict[int, float]:
        """Return the current share of batches of each level."""
        settings = self.settings
        if self.level < settings.stop:
            lower = range(settings.start, self.level)
            top = settings.top_share if len(lower) else 1.0
            return {self.level: top} | {level: (1 - top) / len(lower) for level in lower}
        weights = settings.final_weights or (1.0,) * len(self._levels())
        return {level: weight / sum(weights) for level, weight in zip(self._levels(), weights, strict=True)}

    def update(self, level: int, is_held_back_kind: bool, exact_match: float) -> None:
        """Update the running exact match with that of a batch (0 to 1); go up a level when it passes the threshold."""
        if level != self.level or is_held_back_kind or self.level >= self.settings.stop:
            return
        self.running = SMOOTHING * self.running + (1 - SMOOTHING) * exact_match
        if self.running > self.settings.threshold:
            self.level, self.running = self.level + 1, 0.0

    def state(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return {"level": self.level, "running": self.running}

    def restore(self, state: Mapping[str, float]) -> None:
        """Restore a state that `state` returned."""
        self.level, self.running = int(state["level"]), state["running"]
