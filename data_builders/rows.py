"""Rows of the benchmarks that come as one file: JSON Lines or a JSON list, plain or gzipped."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import DataError
from data_builders.manifest import sha256_file

Row = dict[str, Any]
# What a row must have, and its type.
Fields = Mapping[str, type | tuple[type, ...]]
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Source:
    """What records come from: its name, the hex sha256 of its bytes, and its number of rows."""

    file: str
    sha256: str
    rows: int


def find_file(data: Path, names: Sequence[str]) -> Path:
    """Return `data` where it is a file, or the one file of a folder that has one of these names (`.gz` or not).

    Raises DataError where there is none, or more than one.
    """
    if data.is_file():
        return data
    if not data.is_dir():
        raise DataError(f"{data}: no such file or folder; name {' or '.join(names)}, or the folder it is in")
    found = [path for name in names for path in (data / name, data / f"{name}.gz") if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{data} holds {' and '.join(path.name for path in found)}; name one of these files")
    raise DataError(f"{data} holds no {' or '.join(names)} (.gz or not); name the file, or the folder it is in")


def read_rows(path: Path, fields: Fields) -> tuple[list[Row], Source]:
    """Return all rows of a file and where they come from; raises DataError as `iter_rows` does, and for no rows."""
    rows = list(iter_rows(path, fields))
    if not rows:
        raise DataError(f"{path} holds no rows; get the file again")
    return rows, Source(path.name, sha256_file(path), len(rows))


def iter_rows(path: Path, fields: Fields) -> Iterator[Row]:
    """Yield the rows of a file.

    Raises DataError where the file cannot be read, or a row is no object or lacks a field.
    """
    for number, row in _numbered(path):
        yield require_fields(row, fields, f"{path}, row {number}")


def require_fields(row: Any, fields: Fields, where: str) -> Row:
    """Return a row that is an object with these fields; raises DataError for one that is not."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: no JSON object; is it the right file?")
    for field, kind in fields.items():
        if not isinstance(row.get(field), kind):
            raise DataError(f"{where}: no usable {field!r}; is it the right file?")
    return row


def _numbered(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield values with the line that each is on, or its place in the list, from 1."""
    number = 0
    try:
        with path.open("rb") as stream:
            opened = gzip.open if stream.read(len(_GZIP)) == _GZIP else open
        with opened(path, "rt", encoding="utf-8") as lines:
            if path.name.removesuffix(".gz").endswith(".json"):
                content = json.load(lines)
                yield from enumerate(content if isinstance(content, list) else [content], start=1)
                return
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, json.loads(line)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path} cannot be read as JSON after row {number} ({problem}); get the file again") from None
