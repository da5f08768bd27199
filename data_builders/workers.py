"""Worker processes of a build: results come in order, and only a few tasks are in flight at a time."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from data_builders.errors import UserError

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")
_TASKS_PER_WORKER = 2
_prepared: Any = None  # in a worker process: the return value of `prepare`


def num_workers(asked: int | None) -> int:
    """Return the number of worker processes: `asked`, or one for each core that this process may use.

    Raises:
        UserError: `asked` is less than 1.
    """
    if asked is not None and asked < 1:
        raise UserError(f"workers: {asked} is too few; use at least 1")
    return asked or usable_cores()


def usable_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Generic[C]):
    """A pool of `count` processes that each call `prepare` once; with `count` 1, this process does the work itself."""

    def __init__(self, count: int, prepare: Callable[[], C]) -> None:
        self._limit = count * _TASKS_PER_WORKER
        self._pool: ProcessPoolExecutor | None = None
        if count == 1:
            self._own = prepare()
        else:
            # Not forked: a forked process inherits locks held by threads that do not exist in it.
            self._pool = ProcessPoolExecutor(count, get_context("spawn"), _start, (prepare,))

    def map(self, function: Callable[[C, T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield `function(prepared, item)` for each item, in order; `prepared` is the return value of `prepare`.

        `function` must be picklable.

        Raises:
            UserError: a process was killed, for example because memory ran out.
        """
        if self._pool is None:
            yield from (function(self._own, item) for item in items)
            return
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(_call, function, item))
                if len(waiting) >= self._limit:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "workers: a process of the build was killed, perhaps for want of memory; run the same command again, "
                "which goes on from here, with fewer --workers"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _start(prepare: Callable[[], object]) -> None:
    global _prepared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _prepared = prepare()


def _call(function: Callable[[Any, T], R], item: T) -> R:
    return function(_prepared, item)


def _end_with_parent() -> None:
    """Exit when the parent dies; otherwise this process would wait for work forever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
