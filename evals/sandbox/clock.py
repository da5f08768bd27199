"""The time that a program has, of which the judge takes care: for all of it, and for what it is asked in between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass
class _Span:
    seconds: float
    began: float
    waited: float


class Clock:
    """Ends what takes too long; the time in which the program was ready and the machine too busy does not count.

    It is credited up to three times the limit, so that a verdict does not depend on what else the machine does.

    Args:
        pid: of the program.
        end: called with what there was too much of.
    """

    current: Clock | None = None
    """The clock of this process, which has one timer."""

    def __init__(self, pid: int, end: Callable[[str], NoReturn]) -> None:
        self.end = end
        self.spans: list[_Span] = []
        self.counts = [_open_waiting_times(who) for who in (str(pid), "self")]  # before this process is confined
        signal.signal(signal.SIGALRM, self._on_alarm)
        Clock.current = self

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """End the program unless the block is done in so many seconds."""
        self.spans.append(_Span(seconds, time.monotonic(), self._waited()))
        self._set()
        try:
            yield
        finally:
            self.spans.pop()
            self._set()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count the time of the block, in which nothing of the program runs."""
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            yield
        finally:
            for span in self.spans:
                span.seconds += time.monotonic() - began
            self._set()

    def _set(self) -> None:
        left = [self._left(span) for span in self.spans]
        signal.setitimer(signal.ITIMER_REAL, max(min(left), 0.001) if left else 0)

    def _left(self, span: _Span) -> float:
        credit = min(self._waited() - span.waited, 3 * span.seconds)
        return span.seconds + credit - (time.monotonic() - span.began)

    def _on_alarm(self, *_: Any) -> None:
        for span in self.spans:
            if self._left(span) < 0.01:
                self.end(f"more than {span.seconds:g} s")
        self._set()

    def _waited(self) -> float:
        """Return the seconds the program and the judge have waited for a processor (0 where nobody counts them)."""
        try:
            return sum(int(os.pread(each, 100, 0).split()[1]) for each in self.counts) / 1e9
        except (OSError, IndexError):
            return 0.0


def _open_waiting_times(process: str) -> int:
    try:
        return os.open(f"/proc/{process}/schedstat", os.O_RDONLY)
    except OSError:
        return -1
