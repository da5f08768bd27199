"""Rows of files: JSON Lines or a JSON list, CSV, TSV and Parquet, read by the rules of `data_builders.files`.

An invalid row is a one-line UserError: `FILE:LINE: problem; advice`, or `FILE, row N: ...` in Parquet and JSON lists.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data_builders.errors import UserError
from data_builders.files import MAX_LINE_BYTES, open_binary, read_bytes, read_lines, require_file, sha256_file
from data_builders.values import is_json_list, numbered_json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Row = dict[str, Any]
# Required fields of a row, with their types.
Fields = Mapping[str, type | tuple[type, ...]]
_PARQUET = b"PAR1"
_SEPARATED = re.compile(r"\.(csv|tsv)(\.\w+)?$", re.IGNORECASE)
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Source:
    """The origin of records: a name, the hex sha256 of the file (or of a dataset's rows), and the number of rows."""

    file: str
    sha256: str
    rows: int


def find_file(data: Path, names: Sequence[str]) -> Path:
    """Return `data` if it is a file, else the one file in the folder `data` with one of these names (`.gz` or not).

    Raises UserError if there is none, or more than one.
    """
    if not data.is_dir():
        require_file(data)
        return data
    found = [path for name in names for path in (data / name, data / f"{name}.gz") if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{data} holds {' and '.join(path.name for path in found)}; name one of these files")
    raise UserError(f"{data} holds no {' or '.join(names)} (.gz or not); name the file, or the folder it is in")


def read_rows(path: Path, fields: Fields) -> tuple[list[Row], Source]:
    """Return all rows of a file and their Source; raises UserError as `iter_rows` does, and if there are no rows."""
    rows = list(iter_rows(path, fields))
    if not rows:
        raise UserError(f"{path} holds no rows; get the file again")
    return rows, Source(path.name, sha256_file(path), len(rows))


def iter_rows(path: Path, fields: Fields) -> Iterator[Row]:
    """Yield the rows of a file (see `located_rows`).

    Raises UserError if the file cannot be read, or a row is not an object or lacks a field.
    """
    for where, row in located_rows(path):
        yield require_fields(row, fields, where)


def located_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (location for error messages, row) for each row of a file.

    CSV and TSV are told by the file's name, Parquet and JSON by its content.
    """
    if is_parquet(path):
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(_parquet_rows(path), start=1))
    elif found := _SEPARATED.search(path.name):
        yield from _separated_rows(path, "," if found[1].lower() == "csv" else "\t")
    else:
        form = "{}, row {}" if is_json_list(path) else "{}:{}"
        yield from ((form.format(path, number), value) for number, value in numbered_json(path))


def is_parquet(path: Path) -> bool:
    """Tell from its first bytes whether a file is Parquet; raises UserError if it cannot be read."""
    with open_binary(path) as stream:
        return stream.read(len(_PARQUET)) == _PARQUET


def require_fields(row: Any, fields: Fields, where: str) -> Row:
    """Return `row` if it is an object with these fields; else raise UserError."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: no JSON object; is it the right file?")
    for field, kind in fields.items():
        value = row.get(field)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{where}: no usable {field!r}; is it the right file?")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}: {field!r} is {value}, no number; correct it")
    return row


def text_of(row: Row) -> str:
    """Return the whole text of a training row: `text`, or prompt + completion."""
    return str(row["text"] if "text" in row else row["prompt"] + row["completion"])


def read_jsonl(path: Path, numbers: Collection[str] = (), fields: Fields | None = None) -> list[Row]:
    """Read a JSONL log; ignore a last line without a line end, and return no rows if the file is missing.

    Args:
        numbers: fields that must be a number or null in rows that have them.
        fields: required fields of every row, with their types.

    Raises:
        UserError: a complete line is not valid JSON, or not such a row.
    """
    if not path.exists():
        return []
    rows = []
    for number, row in numbered_json(path, skip_torn=True):
        rows.append(require_fields(row, fields or {}, f"{path}:{number}"))
        for name in numbers:
            if not isinstance(row.get(name), int | float | None) or isinstance(row.get(name), bool):
                raise UserError(f"{path}:{number}: {name!r} is no number; delete or restore the file")
    return rows


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON Lines; a float that JSON cannot represent (a NaN loss) becomes null."""
    clean = ({key: finite(value) if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in clean)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], durable: bool = False) -> None:
    """Append rows as JSON Lines, after dropping a last line that a crash left incomplete; `durable`: fsync."""
    text = json_lines(rows)
    with path.open("ab+") as stream:
        _drop_torn_line(stream)
        stream.write(text.encode(errors="backslashreplace"))
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def finite(value: float | None) -> float | None:
    """Return `value`, or None if it is NaN or infinite, which JSON cannot represent."""
    return None if value is None or not math.isfinite(value) else float(value)


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its last line, row) for each row of a CSV file, header included, blank lines left out.

    Raises UserError if a quoted field does not end, or continues after its closing quote.
    """
    csv.field_size_limit(MAX_LINE_BYTES)  # its own limit, 128 KiB, is less than a long text
    reader = csv.reader(read_lines(path, keep_ends=True), delimiter=delimiter, strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: is no CSV ({error}); correct it, or get the file again") from None


def read_table(path: Path, columns: Collection[str] | None = None) -> pa.Table:
    """Return a Parquet file as a table; raises UserError if it is damaged or not Parquet.

    Args:
        columns: read only those of these columns that there are; None = all.
    """
    with _opened_parquet(path) as parquet:
        names = parquet.schema_arrow.names
        table = parquet.read(names if columns is None else [name for name in names if name in columns])
        table.validate(full=True)  # checks that strings are UTF-8
        return table


def parquet_columns(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns; raises UserError if it is damaged or not Parquet."""
    with _opened_parquet(path) as parquet:
        return list(parquet.schema_arrow.names)


def _parquet_rows(path: Path) -> Iterator[Row]:
    with _opened_parquet(path) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS):
            yield from batch.to_pylist()


def _separated_rows(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    """Yield (location, row) of a CSV or TSV file whose first row names the columns; every value is a text."""
    rows = csv_rows(path, delimiter)
    _, names = next(rows, (1, []))
    if len(set(names)) < len(names):
        raise UserError(f"{path}:1: two columns are named {max(names, key=names.count)!r}; rename one")
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(f"{path}:{line}: has {len(row)} values, and the first row names {len(names)} columns")
        yield f"{path}:{line}", dict(zip(names, row, strict=True))


@contextmanager
def _opened_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, compressed as a whole or not; errors in the block become UserErrors too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_file(path)
    with path.open("rb") as stream:
        is_plain = stream.read(len(_PARQUET)) == _PARQUET
    try:
        with pq.ParquetFile(path if is_plain else pa.BufferReader(read_bytes(path))) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).splitlines()[:1])
        raise UserError(f"{path}: cannot be read as Parquet ({reason}); get the file again") from None


def _drop_torn_line(stream: IO[bytes]) -> None:
    """Truncate a file after its last line break."""
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return
    stream.seek(size - 1)
    if stream.read(1) == b"\n":
        return
    stream.seek(0)
    stream.truncate(stream.read().rfind(b"\n") + 1)
