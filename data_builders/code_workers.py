"""Processes that share a build's work: results come in order, and few tasks are under way at a time."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from data_builders.code_scan import load_index

T = TypeVar("T")
R = TypeVar("R")
_TASKS_PER_PROCESS = 2


class Workers:
    """So many processes that know the test sets; one is this process itself."""

    def __init__(self, processes: int, index: Path) -> None:
        self._limit = processes * _TASKS_PER_PROCESS
        self._pool: ProcessPoolExecutor | None = None
        if processes == 1:
            load_index(index)
        else:
            # Fresh processes: one that is forked would inherit locks of threads that are not there any more.
            self._pool = ProcessPoolExecutor(processes, get_context("spawn"), _start, (index,))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results of a function that can be pickled, in the order of the items."""
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(self._pool.submit(function, item))
            if len(waiting) >= self._limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _start(index: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    load_index(index)
