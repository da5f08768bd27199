"""Time limits that the judge enforces: for the whole program, and for single calls within it."""

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
    """Enforces time limits; time spent waiting for a processor on a busy machine does not count.

    Up to three times the limit is credited, so that a verdict does not depend on the machine's load.

    Args:
        pid: process id of the program.
        end: called with a message when a limit is exceeded.
    """

    current: Clock | None = None
    """The clock of this process; there is one, as a process has one timer."""

    def __init__(self, pid: int, end: Callable[[str], NoReturn]) -> None:
        self.end = end
        self.spans: list[_Span] = []
        self.counts = [_open_waiting_times(who) for who in (str(pid), "self")]  # before this process is confined
        signal.signal(signal.SIGALRM, self._on_alarm)
        Clock.current = self

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """End the program unless the block finishes within `seconds`."""
        self.spans.append(_Span(seconds, time.monotonic(), self._waited()))
        self._set()
        try:
            yield
        finally:
            self.spans.pop()
            self._set()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Exclude the block, in which the program does not run, from all limits."""
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
        """Return the seconds that program and judge have waited for a processor (0 if the kernel does not say)."""
        try:
            return sum(int(os.pread(each, 100, 0).split()[1]) for each in self.counts) / 1e9
        except (OSError, IndexError):
            return 0.0


def _open_waiting_times(process: str) -> int:
    try:
        return os.open(f"/proc/{process}/schedstat", os.O_RDONLY)
    except OSError:
        return -1
