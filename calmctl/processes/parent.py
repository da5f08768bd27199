"""Turn signals into KeyboardInterrupt, exit when the parent dies, and tell the launcher why."""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

PARENT_VARIABLE = "CALMCTL_STAGE_OF"
LAUNCHER_VARIABLE = "CALMCTL_LAUNCHED_BY"
# Ctrl-C, `kill`, a closed terminal, and the warnings that SLURM's `--signal` sends before the time is up.
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# A child process may get the same signal again, a moment later, from its parent.
ECHO_SECONDS = 2.0
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


class Interrupted(KeyboardInterrupt):
    """The process was told to end; the message, which is printed, says what was saved."""


class _Asked:
    """Whether this process was told to end: the first signal interrupts unless put off, the second one always.

    Attributes:
        since: time of the last signal (monotonic clock).
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.is_put_off = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        now, before = time.monotonic(), self.since
        if before is not None and _is_part() and now - before < ECHO_SECONDS:
            return
        self.since = now
        if before is not None or not self.is_put_off:
            raise KeyboardInterrupt


_asked = _Asked()


def end_like_ctrl_c() -> None:
    """Turn SIGTERM and the like into KeyboardInterrupt; on Linux, also exit when the parent dies.

    Runs are then marked interrupted. SIGINT is set too, because background jobs of a shell inherit it as ignored.
    """
    signal.signal(signal.SIGINT, _asked.handle)
    _listen()
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit(130)


@contextmanager
def putting_off_the_end() -> Iterator[None]:
    """Let the block poll `is_asked_to_end` instead of being interrupted; a second signal interrupts it.

    Works in the main thread, of processes outside the command line too; does nothing in other threads.
    """
    try:
        handlers = _listen()
    except ValueError:  # not the main thread
        yield
        return
    end_if_asked()
    _asked.is_put_off, _asked.since = True, None
    try:
        yield
        if is_asked_to_end():
            raise KeyboardInterrupt
    finally:
        _asked.is_put_off, _asked.since = False, None
        for number, handler in handlers.items():
            signal.signal(number, handler)


def is_asked_to_end() -> bool:
    """Return whether a signal that was put off has asked this process to end."""
    return _asked.is_put_off and _asked.since is not None


def end_if_asked() -> None:
    """Raise KeyboardInterrupt if a signal came, but the exception of its handler was swallowed.

    Iterating over a numpy array of strings, for one, swallows it.
    """
    if _asked.since is not None and not _asked.is_put_off:
        raise KeyboardInterrupt


def _listen() -> dict[signal.Signals, Any]:
    """Handle every signal that asks to end, unless it is ignored (nohup); return the previous handlers."""
    before = {number: signal.getsignal(number) for number in ASKING}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _asked.handle)
    return before


def _is_part() -> bool:
    return PARENT_VARIABLE in os.environ or os.environ.get("WORLD_SIZE", "1") != "1"


def is_first_process() -> bool:
    """Return whether this process prints messages: the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def report_to_launcher(line: str, traceback: str = "") -> bool:
    """Write the reason of this process's failure to a file for `launch`; return False if no launcher reads it.

    Args:
        line: the error in one line.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path or os.environ.get(LAUNCHER_VARIABLE) != str(os.getppid()):
        return False
    now = time.time()
    said = {"line": line, "traceback": traceback, "time": now}
    Path(path).write_text(json.dumps({"message": line, "timestamp": int(now), "calmctl": said}))
    return True
