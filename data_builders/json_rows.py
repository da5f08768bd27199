"""Rows of the benchmarks that come as one JSON or JSON Lines file, plain or gzipped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import DataError
from data_builders.manifest import sha256_file

Row = dict[str, Any]
Fields = dict[str, type | tuple[type, ...]]


@dataclass(frozen=True)
class Source:
    """The file that records come from: its name, the hex sha256 of its bytes, and its number of rows."""

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
    """Return the rows of a file and where they come from.

    Args:
        fields: what every row must have, and its type.

    Raises DataError where the file is no JSON (a list of objects) or JSON Lines, or a row lacks a field.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
        if path.name.removesuffix(".gz").endswith(".json"):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON lines ({error}); download it again") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no rows; download it again")
    for number, row in enumerate(rows, 1):
        for field, kind in fields.items():
            if not isinstance(row, dict) or not isinstance(row.get(field), kind):
                raise DataError(f"{path}, row {number}: no usable {field!r}; is it the right file?")
    return rows, Source(path.name, sha256_file(path), len(rows))
