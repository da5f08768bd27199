"""Files that survive a crash: atomic writes, append-only JSON lines, checksums and locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import secrets
import stat
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
    """Replace a file as `write_bytes` does; what UTF-8 cannot hold (a name that is no text) becomes its escape."""
    write_bytes(path, text.encode(errors="backslashreplace"), durable)


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace `path` by `content` so that a reader, or a crash, sees the old file or the new one, never a part.

    `durable=False` skips the fsync: still atomic for readers, for files that are rewritten all the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
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


def read_text(path: Path) -> str:
    """Read a text in UTF-8; raises UserError where it is missing or is none."""
    with _user_errors():
        return reader.read_text(path)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    with _user_errors():
        return reader.read_json(path)


def read_yaml(path: Path, max_values: int = 100_000) -> Any:
    """Read a YAML file, whose anchors and aliases are looked at before they are followed.

    Raises:
        UserError: it is missing or damaged, names itself, is nested too deeply, or has more values than that.
    """
    import yaml

    with _user_errors():
        text = reader.read_text(path)
    try:
        _check_values(yaml.parse(text, Loader=yaml.SafeLoader), path, max_values)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct the file") from error


def _check_values(events: Iterable[Any], path: Path, limit: int) -> None:
    """Raise UserError where the values of a YAML file, each alias written out, are too many or too deep."""
    import yaml

    # Where in the count each open list or group begins, and how many values an anchor stands for.
    total, open_at, sizes = 0, list[tuple[str | None, int]](), dict[str | None, int]()
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            open_at.append((event.anchor, total))
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserError(f"{path}:{event.start_mark.line + 1}: *{event.anchor} names itself; write it out")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_at.pop()
            sizes[anchor] = total - start
        if isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
        if total > limit or len(open_at) > reader.MAX_DEPTH:
            problem = f"more than {limit:,} values" if total > limit else f"more than {reader.MAX_DEPTH} levels"
            raise UserError(f"{path}:{event.start_mark.line + 1}: {problem}, aliases written out; make it smaller")


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], durable: bool = False) -> None:
    """Append rows, each on a line of its own, after dropping a last line that a crash tore.

    A float that JSON cannot hold (a loss that is NaN) becomes null. `durable=True` waits until they are on the disk.
    """
    text = "".join(_json_line(row) for row in rows)
    with path.open("ab+") as stream:
        _drop_torn_line(stream)
        stream.write(text.encode(errors="backslashreplace"))
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
        """Give the lock back; harmless when it is not held."""
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
        """Open the file itself: what a link led to would be emptied, and a FIFO would be waited for."""
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
