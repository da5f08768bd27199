"""Files that survive a crash: atomic writes, append-only JSON lines, checksums and locks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from data_builders import files as reader
from data_builders.errors import DataError
from data_builders.rows import require_fields

_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_SECONDS = 0.02


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace `path` by `text` so that a reader, or a crash, sees the old file or the new one, never a part.

    `durable=False` skips the fsync: still atomic for readers, for files that are rewritten all the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o666 & ~_umask())  # mkstemp makes files only their owner can read
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def share_as_umask_says(path: Path) -> None:
    """Give a file, or every file below a folder, the mode of a new one: libraries make theirs their owner's alone."""
    mode = 0o666 & ~_umask()
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write `value` as indented JSON, atomically. Not-a-number is an error: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    with _user_errors():
        return reader.read_json(path)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], durable: bool = False) -> None:
    """Append rows, each on a line of its own, after dropping a last line that a crash tore.

    A float that JSON cannot hold (a loss that is NaN) becomes null. `durable=True` waits until they are on the disk.
    """
    text = "".join(_json_line(row) for row in rows)
    with path.open("ab+") as stream:
        _drop_torn_line(stream)
        stream.write(text.encode())
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def read_jsonl(
    path: Path, numbers: Collection[str] = (), fields: Mapping[str, type] | None = None
) -> list[dict[str, Any]]:
    """Read JSON lines; a torn last line is ignored, a missing file is empty.

    Args:
        numbers: fields that hold a number or nothing, in rows that have them.
        fields: fields that every row must have, and their types.

    Raises:
        UserError: a line that is not the last one is damaged, or holds something else.
    """
    if not path.exists():
        return []
    rows = []
    with _user_errors():
        for number, row in reader.numbered_json(path, skip_torn=True):
            rows.append(require_fields(row, fields or {}, f"{path}:{number}"))
            for name in numbers:
                if not is_number(row.get(name)):
                    raise UserError(f"{path}:{number}: {name!r} is no number; delete or restore the file")
    return rows


def is_number(value: object) -> bool:
    """Tell whether a value that was read from JSON is a number, or null."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def finite(value: float | None) -> float | None:
    """Return `value`, or None for what JSON cannot hold: NaN and infinities."""
    return None if value is None or not math.isfinite(value) else float(value)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder: names and checksums of its visible files, in order."""
    if not path.is_dir():
        with _user_errors():
            return reader.sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            digest.update(f"{relative.as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def sync_tree(folder: Path) -> None:
    """Wait until all files below a folder, and their names, are on the disk."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: of files that were made, renamed or removed in it."""
    _sync(folder)


class FileLock:
    """An exclusive lock on a file that the system releases when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock and leave the process id in the file; False if another process holds it."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
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
        """Give the lock back; harmless when it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def is_held(self) -> bool:
        """Return whether any process, this one included, holds the lock now."""
        if self._handle is not None:
            return True
        try:
            handle = os.open(self._path, os.O_RDONLY)
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
            return self._path.read_text().strip() or "unknown"
        except OSError:
            return "unknown"


@contextmanager
def _user_errors() -> Iterator[None]:
    """Turn what is wrong with a file that is read in the block into a UserError."""
    try:
        yield
    except DataError as error:
        raise UserError(str(error)) from error


def _json_line(row: Mapping[str, Any]) -> str:
    clean = {key: finite(value) if isinstance(value, float) else value for key, value in row.items()}
    return json.dumps(clean, ensure_ascii=False, allow_nan=False) + "\n"


def _drop_torn_line(stream: Any) -> None:
    """Cut what stands after the last line break."""
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return
    stream.seek(size - 1)
    if stream.read(1) == b"\n":
        return
    stream.seek(0)
    stream.truncate(stream.read().rfind(b"\n") + 1)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
