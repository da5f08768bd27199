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
# A part of something gets a signal from what it is a part of too, a moment after its own.
ECHO_SECONDS = 2.0
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


class Interrupted(KeyboardInterrupt):
    """The process was told to end; the message says what was saved, and is printed."""


class _Asked:
    """Whether this process was told to end: at once, unless somebody wants to finish something; a second time, always.

    Attributes:
        since: when it was, by the monotonic clock.
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
    """Treat the signals that ask to end like Ctrl-C, so that runs say that they were interrupted; end with a parent.

    The second works on Linux. SIGINT is set too: a background job of a shell would inherit it as ignored.
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
    """Let the block ask (`is_asked_to_end`) whether to end, instead of being interrupted; a second signal interrupts.

    It works in the main thread, whether or not the process is one of the command line; elsewhere nothing changes.
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
    """Raise KeyboardInterrupt where a signal has and nothing came of it.

    Iterating over a numpy array of strings, for one, swallows what a signal handler raises meanwhile.
    """
    if _asked.since is not None and not _asked.is_put_off:
        raise KeyboardInterrupt


def _listen() -> dict[signal.Signals, Any]:
    """Handle every signal that asks to end, unless it is ignored (nohup); return the handlers there were."""
    before = {number: signal.getsignal(number) for number in ASKING}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _asked.handle)
    return before


def _is_part() -> bool:
    return PARENT_VARIABLE in os.environ or os.environ.get("WORLD_SIZE", "1") != "1"


def is_first_process() -> bool:
    """Return whether this process does the talking: alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def report_to_launcher(line: str, traceback: str = "") -> bool:
    """Leave word why this process fails where `calmctl.processes.launch` reads it; False where nobody does.

    Args:
        line: what is wrong, in one line.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path or os.environ.get(LAUNCHER_VARIABLE) != str(os.getppid()):
        return False
    now = time.time()
    said = {"line": line, "traceback": traceback, "time": now}
    Path(path).write_text(json.dumps({"message": line, "timestamp": int(now), "calmctl": said}))
    return True
