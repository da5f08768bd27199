"""What a build says of itself while it runs: lines about what is done, and steps of what is under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Progress:
    """Where a build reports to; by default nowhere.

    Attributes:
        note: takes a line of text.
        step: takes the name of a stage, the steps done and those that there are.
    """

    note: Callable[[str], None] = _nothing
    step: Callable[[str, int, int], None] = _nothing
