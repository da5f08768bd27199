"""How a build reports its progress: notes on finished work, and steps of the current stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Progress:
    """The callbacks that a build reports to; by default they do nothing.

    Attributes:
        note: called with a line of text.
        step: called with the name of a stage, the steps done and their total.
    """

    note: Callable[[str], None] = _nothing
    step: Callable[[str, int, int], None] = _nothing
