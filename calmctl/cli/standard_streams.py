"""Make stdin, stdout and stderr robust: a closed, full or broken stream loses no results."""

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
    """The reader of stdout (`| head`) has closed the pipe.

    This is no OSError because libraries that print for us exit by themselves on a broken pipe.
    """


def prepare_streams() -> None:
    """Replace stdin, stdout and stderr so that this process can write to them in any state.

    A closed stream becomes /dev/null, so that no later file gets its descriptor. Errors on stderr (terminal gone, disk
    full) are ignored. Errors on stdout raise: `NobodyReads` for a broken pipe, otherwise CalmctlError. When a terminal
    goes away, only SIGHUP ends the process. Characters that the encoding lacks are written as backslash escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed; lower descriptors are open, so the next file opened gets this number
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout = _text(_Results(1), sys.stdout)
    sys.stderr = _text(_Progress(2), sys.stderr)


def show_log() -> None:
    """Print calmctl's log messages, from level INFO on, on stderr without a prefix."""
    logger = logging.getLogger("calmctl")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Log())


class _Log(logging.Handler):
    """Prints log messages on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(record.getMessage()), file=sys.stderr, flush=True)


class _Results(io.RawIOBase):
    """Stdout, which fails only once: after an error it writes to /dev/null, so that the flush at exit succeeds."""

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
                time.sleep(0.1)  # a closing terminal fails a moment before it sends SIGHUP
                return len(content)
            problem = f"stdout: {error.strerror}; what was stored is not lost, run the same command again to print it"
            raise CalmctlError(problem) from error

    def _put(self, content: bytes) -> int:
        while True:
            try:
                return os.write(self._number, content)
            except BlockingIOError:  # another process has made the pipe non-blocking
                select.select([], [self._number], [])

    def _discard(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._number)
        os.close(null)


class _Progress(_Results):
    """Stderr, which never fails: errors are ignored."""

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
