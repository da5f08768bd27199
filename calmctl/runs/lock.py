"""A file lock that tells other processes that a run is being written."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

from calmctl.errors import UserError

_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_SECONDS = 0.02


class FileLock:
    """An exclusive lock on a file; the system releases it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock and write the process id into the file; return False if another process holds it."""
        handle = self._open(os.O_RDWR | os.O_CREAT)
        for attempt in range(_LOCK_ATTEMPTS):  # `is_held` of another process may hold it for an instant
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if attempt + 1 < _LOCK_ATTEMPTS:
                    time.sleep(_LOCK_PAUSE_SECONDS)
                continue
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            self._handle = handle
            return True
        os.close(handle)
        return False

    def release(self) -> None:
        """Release the lock; harmless if it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def is_held(self) -> bool:
        """Return whether any process, this one included, holds the lock now."""
        if self._handle is not None:
            return True
        try:
            handle = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def owner(self) -> str:
        """Return the process id in the lock file, or `unknown`."""
        try:
            handle = self._open(os.O_RDONLY)
        except (OSError, UserError):
            return "unknown"
        with os.fdopen(handle, "rb") as stream:
            name = stream.read(32).strip()
        return name.decode() if name.isdigit() else "unknown"

    def _open(self, how: int) -> int:
        """Open a regular file only: the target of a link would be truncated, and opening a FIFO would block."""
        advice = f"{self._path}: is no lock file but a link or something else; remove it"
        try:
            handle = os.open(self._path, how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise UserError(advice) from error
            raise
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(handle)
            raise UserError(advice)
        return handle
