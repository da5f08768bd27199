"""JSON Lines, plain or gzipped, with errors that name the line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_builders.errors import DataError


def read_jsonl(path: Path, required: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield the objects of a .jsonl or .jsonl.gz file; raises DataError for a line that is none or lacks a field."""
    opened = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path}: line {number} is no JSON object; get the file again")
                if missing := [name for name in required if name not in row]:
                    raise DataError(f"{path}: line {number} has no field {missing[0]!r}; get the official file")
                yield row
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read after line {number} ({error}); get the file again") from None
