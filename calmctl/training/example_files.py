"""Training files: JSONL or Parquet with prompt/completion or text rows, as one table."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from calmctl.errors import UserError
from data_builders.row_files import is_parquet, located_rows, read_table, require_fields

TEXT_COLUMNS = {"prompt", "completion", "text"}
_NAME = re.compile(r"\.(jsonl?|parquet)(\.(gz|bz2|xz))?$")


def read_examples(path: Path) -> pa.Table:
    """Read a training file: a table with `prompt` and `completion`, or `text`, and `meta` if its rows have any.

    Raises:
        UserError: the file is missing, damaged, of another format or empty, or lacks a column or a text.
    """
    check_path(path)
    table = (_read_parquet if path.suffix == ".parquet" or is_parquet(path) else _read_jsonl)(path)
    if not table.num_rows:
        raise UserError(f"{path}: there are no rows in it")
    columns = set(table.column_names)
    if not _can_be_learned(columns):
        raise UserError(f"{path}: needs columns `prompt` and `completion`, or `text`; found {table.column_names}")
    for name in columns & TEXT_COLUMNS:
        if not pa.types.is_string(table.schema.field(name).type):
            raise UserError(f"{path}: column `{name}` must hold text, not {table.schema.field(name).type}")
        if table[name].null_count:
            row = pc.index(table[name].is_null(), True).as_py() + 1
            raise UserError(f"{path}: row {row} has no `{name}` ({table[name].null_count} such rows); remove them")
    return table


def check_path(path: Path) -> None:
    """Raise UserError if a training file is missing or, by its name, of another format."""
    if not path.exists():
        raise UserError(f"{path}: no such training file; build it with `calmctl data`, or check the path")
    if not _NAME.search(path.name):
        kind = "a folder" if path.is_dir() else repr(path.suffix or "a file without a suffix")
        raise UserError(f"{path}: training data must be .jsonl or .parquet, not {kind}")


def meta_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the fields of the rows' `meta`, each (rows,)."""
    if not (names := _meta_fields(table)):
        return {}
    meta = table["meta"].combine_chunks()
    return {name: meta.field(name).to_numpy(zero_copy_only=False) for name in names}


def _meta_fields(table: pa.Table) -> list[str]:
    kind = table.schema.field("meta").type if "meta" in table.column_names else None
    return [field.name for field in kind] if kind is not None and pa.types.is_struct(kind) else []


def open_ended(path: Path, table: pa.Table) -> list[bool]:
    """Return for each row whether its `meta.open_ended` says that the text goes on; False without one.

    Raises:
        UserError: a value is neither true nor false.
    """
    if "open_ended" not in _meta_fields(table):
        return [False] * table.num_rows
    said = pc.struct_field(table["meta"], "open_ended").to_pylist()
    if unclear := [row for row, value in enumerate(said, 1) if value not in (None, True, False)]:
        raise UserError(f"{path}: row {unclear[0]}: `meta.open_ended` is {said[unclear[0] - 1]!r}; say true or false")
    return list(map(bool, said))


def _read_jsonl(path: Path) -> pa.Table:
    """Read the texts and the `meta` of a JSONL file; other columns may hold anything."""
    texts: dict[str, list[str | None]] = {name: [] for name in sorted(TEXT_COLUMNS)}
    meta: dict[str, list[Any]] = {}
    others: dict[str, None] = {}
    for number, (where, found) in enumerate(located_rows(path)):
        row = require_fields(found, {}, where)
        for name, values in texts.items():
            if not isinstance(value := row.get(name), str | None):
                raise UserError(f"{where}: `{name}` is not text; correct it")
            values.append(value)
        others |= dict.fromkeys(row.keys() - texts.keys() - {"meta"})
        fields = each if isinstance(each := row.get("meta"), dict) else {}
        for name in fields.keys() - meta.keys():
            meta[name] = [None] * number
        for name, values in meta.items():
            values.append(fields.get(name))
    columns = {
        name: pa.array(values, pa.string()) for name, values in texts.items() if any(v is not None for v in values)
    }
    if meta:
        columns["meta"] = pa.StructArray.from_arrays([_inferred(path, name, meta[name]) for name in meta], list(meta))
    if not _can_be_learned(columns.keys()):  # for the error, which lists the columns found
        columns |= {name: pa.nulls(len(texts["text"])) for name in others or [""]}
    return pa.table(columns)


def _inferred(path: Path, name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise UserError(f"{path}: `meta.{name}` has values of several types ({error}); give it one") from error


def _read_parquet(path: Path) -> pa.Table:
    table = read_table(path)
    for index, field in enumerate(table.schema):
        held = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_large_string(held) or pa.types.is_string_view(held) or held is not field.type:
            table = table.set_column(index, field.name, table.column(index).cast(held).cast(pa.string()))
    return table


def _can_be_learned(columns: Collection[str]) -> bool:
    return "text" in columns or {"prompt", "completion"} <= set(columns)
