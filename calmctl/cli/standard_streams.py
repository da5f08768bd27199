"""The streams of the process: one that is closed, full or read by nobody any more costs no result."""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
import time
from typing import Any, cast

from calmctl.errors import CalmctlError
from calmctl.escaping import visible


class NobodyReads(Exception):
    """Whoever read our output (`| head`) has seen enough.

    It is no OSError, which libraries that print for us answer with an exit of their own.
    """


def prepare_streams() -> None:
    """Let this process write to stdout and stderr whatever they are.

    A closed one is as good as /dev/null, and its number is not given to a file that is opened later. Progress that
    nobody can read any more (the terminal is gone, the disk with the log is full) does not stop the work. Results that
    cannot be written do: `NobodyReads` where nobody reads them, else CalmctlError. A terminal that goes away stops what
    it sends SIGHUP, and nothing else. What no encoding has is written out.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next to be opened gets the number, and all below it are open
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = _text(_Results(1), sys.stdout)
    sys.stderr = _text(_Progress(2), sys.stderr)


def show_log() -> None:
    """Let lines of our log, information included, appear on stderr as they are."""
    logger = logging.getLogger("calmctl")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Log())


class _Log(logging.Handler):
    """Prints what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(record.getMessage()), file=sys.stderr, flush=True)


class _Results(io.RawIOBase):
    """Stdout, which fails once: what is left to be flushed at exit goes nowhere."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._is_terminal = os.isatty(number)

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        try:
            return self._put(content)
        except OSError as error:
            self._discard()
            if isinstance(error, BrokenPipeError):
                raise NobodyReads from None
            if error.errno == errno.EIO and self._is_terminal:
                time.sleep(0.1)  # a terminal that goes away refuses to be written to a moment before SIGHUP comes
                return len(content)
            problem = f"stdout: {error.strerror}; what was stored is not lost, run the same command again to print it"
            raise CalmctlError(problem) from error

    def _put(self, content: bytes) -> int:
        while True:
            try:
                return os.write(self._number, content)
            except BlockingIOError:  # another process has made the pipe one that does not wait
                select.select([], [self._number], [])

    def _discard(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._number)
        os.close(null)


class _Progress(_Results):
    """Stderr, which never fails."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        try:
            return self._put(content)
        except OSError:
            self._discard()
            return len(content)


def _text(raw: _Results, before: object) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    is_line_buffered = raw.fileno() == 2 or raw.isatty()
    buffered = io.BufferedWriter(cast(Any, raw))
    return io.TextIOWrapper(buffered, encoding, errors="backslashreplace", line_buffering=is_line_buffered)
