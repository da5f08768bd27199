"""Rows to train or to evaluate on: prompts with completions, texts or conversations, whatever file they come from.

The columns of a row decide its form; `columns` names those that are called otherwise (ours -> theirs):

| columns | form |
|---|---|
| `prompt`, `completion` | as they are |
| `text` | as it is |
| `messages`: a list of {role, content} | a conversation |
| `conversations`: a list of {from, value} (ShareGPT) | a conversation |
| `instruction`, `output`, maybe `input` (Alpaca) | Alpaca's prompt around instruction and input, and the output |

Whatever the form, `id` and `meta` are read too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_builders.errors import UserError
from data_builders.row_files import is_parquet, located_rows, parquet_columns, read_table, require_fields
from data_builders.row_forms import COLUMNS, FORMS, Message, check_columns
from data_builders.row_sources import RowSource, find_rows
from data_builders.values import parse_json

_CHATS = ("messages", "conversations")
_SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "model": "assistant", "system": "system",
}  # fmt: skip
_ALPACA = "Below is an instruction that describes a task{}. Write a response that appropriately completes the request."
# Columns that a form may have as well, by its first column.
_BESIDE = {"instruction": ("input",)}
_INPUT = ", paired with an input that provides further context"


@dataclass(frozen=True)
class _Part:
    """The needed columns of a file, by our names; the names of all its columns; what is wrong with which column."""

    table: pa.Table
    found: Sequence[str]
    problems: Mapping[str, str]


def read_example_rows(
    source: RowSource | str,
    columns: Mapping[str, str] | None = None,
    forms: Sequence[Sequence[str]] = FORMS,
    fields: Collection[str] = (),
) -> pa.Table:
    """Read rows as a table with `prompt` and `completion`, or `text`, or `messages` as JSON, and `id` and `meta`.

    Args:
        columns: our name of a column -> its name in the files.
        forms: columns of which one set must be there; the first that is decides, those that `columns` names first.
        fields: fields of `meta` that may also be columns of their own.

    Raises:
        UserError: the source cannot be read or has no rows, columns are missing, or a value is no text.
    """
    columns = dict(columns or {})
    check_columns(columns)
    source = find_rows(source) if isinstance(source, str) else source
    names = {ours: columns.get(ours, ours) for ours in COLUMNS} | {"meta": "meta"}
    parts = [_of_dataset(source, names, fields)] if source.dataset is not None else []
    parts += [_of_file(file, names, fields) for file in source.files]
    found = list(dict.fromkeys(name for part in parts for name in part.found))
    try:
        table = pa.concat_tables([part.table for part in parts], promote_options="permissive")
    except pa.ArrowException as error:
        reason = " ".join(str(error).splitlines()[:1])
        raise UserError(f"{source.name}: its files do not go together ({reason}); name those that do") from None
    if not table.num_rows:
        raise UserError(f"{source.name}: there are no rows in it")
    for ours, theirs in columns.items():
        if theirs not in found:
            raise UserError(f"{source.name}: columns.{ours}={theirs}: no such column; found {found}")
    problems = {ours: problem for part in reversed(parts) for ours, problem in part.problems.items()}
    there = problems.keys() | set(table.column_names)
    form = next((form for form in _preferred(forms, columns) if there.issuperset(form)), None)
    if form is None:
        wanted = ", or ".join(" and ".join(f"`{name}`" for name in form) for form in forms)
        advice = "columns.NAME=COLUMN maps them; one without a value is none"
        raise UserError(f"{source.name}: needs columns {wanted}; found {found} ({advice})")
    used = (*form, *_BESIDE.get(form[0], ()), "id")
    if problem := next((problems[name] for name in used if name in problems), None):
        raise UserError(problem)
    _check_texts(source.name, table, form)
    return _plain(table.select([name for name in table.column_names if name in (*used, "meta")]), form)


def _preferred(forms: Sequence[Sequence[str]], columns: Mapping[str, str]) -> list[Sequence[str]]:
    """Return the forms, those with columns that are mapped first."""
    return sorted(forms, key=lambda form: not any(name in columns for name in form))


def _check_texts(name: str, table: pa.Table, form: Sequence[str]) -> None:
    for column in form:
        if table[column].null_count:
            row = pc.index(table[column].is_null(), True).as_py() + 1
            count = table[column].null_count
            raise UserError(f"{name}: row {row} has no `{column}` ({count} such rows); remove them")


def _plain(table: pa.Table, form: Sequence[str]) -> pa.Table:
    """Return a table of a form with `prompt` and `completion`, or `text`, or `messages`."""
    if form[0] == "conversations":
        return table.rename_columns(["messages" if each == "conversations" else each for each in table.column_names])
    if form[0] != "instruction":
        return table
    inputs = table["input"].to_pylist() if "input" in table.column_names else [None] * table.num_rows
    prompts = map(alpaca_prompt, table["instruction"].to_pylist(), inputs)
    plain = {"prompt": pa.array(prompts, pa.string())}
    if "output" in table.column_names:
        plain["completion"] = table["output"]
    return pa.table(plain | {each: table[each] for each in ("id", "meta") if each in table.column_names})


def alpaca_prompt(instruction: str, given: str | None) -> str:
    """Return Alpaca's prompt (https://github.com/tatsu-lab/stanford_alpaca) of an instruction and maybe an input."""
    middle = f"\n\n### Input:\n{given}" if given else ""
    return f"{_ALPACA.format(_INPUT if given else '')}\n\n### Instruction:\n{instruction}{middle}\n\n### Response:\n"


def _of_file(file: Path, names: Mapping[str, str], fields: Collection[str]) -> _Part:
    if not is_parquet(file):
        return _of_rows(located_rows(file), names, fields, str(file))
    table = read_table(file, {*names.values(), *fields})
    return _of_table(table, parquet_columns(file), names, fields, str(file))


def _of_dataset(source: RowSource, names: Mapping[str, str], fields: Collection[str]) -> _Part:
    there = source.dataset.column_names
    wanted = [name for name in there if name in {*names.values(), *fields}]
    table = source.dataset.select_columns(wanted).with_format("arrow")[:]
    return _of_table(table, there, names, fields, source.name)


def _of_table(
    table: pa.Table, there: Sequence[str], names: Mapping[str, str], fields: Collection[str], where: str
) -> _Part:
    columns: dict[str, Any] = {"": pa.nulls(table.num_rows)}
    problems: dict[str, str] = {}
    for ours, theirs in names.items():
        if theirs not in table.column_names:
            continue
        column = table[theirs]
        try:
            if ours == "meta":
                columns[ours] = column
            elif column.null_count == len(column):
                continue  # whatever its type
            elif ours in _CHATS or ours == "id":
                values = enumerate(column.to_pylist(), 1)
                texts = [_value(value, ours, theirs, f"{where}, row {number}") for number, value in values]
                columns[ours] = pa.array(texts, pa.string())
            else:
                columns[ours] = _texts(column, theirs, where)
        except UserError as error:
            problems[ours] = str(error)
    if own := [name for name in fields if name in table.column_names]:
        columns["meta"] = _struct({name: table[name] for name in own} | _struct_fields(columns.get("meta")))
    return _Part(pa.table(columns), there, problems)


def _texts(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Return a column as plain strings."""
    held = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not any(is_text(held) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        raise UserError(f"{where}: column `{name}` must hold text, not {column.type}")
    return column if column.type == pa.string() else column.cast(held).cast(pa.string())


def _of_rows(rows: Iterable[tuple[str, Any]], names: Mapping[str, str], fields: Collection[str], name: str) -> _Part:
    """Return the needed columns of rows; their other columns may hold anything."""
    texts: dict[str, list[str | None]] = {}
    meta: dict[str, list[Any]] = {}
    found: dict[str, None] = {}
    problems: dict[str, str] = {}
    number = -1
    for number, (where, value) in enumerate(rows):
        row = require_fields(value, {}, where)
        if row.keys() - found.keys():
            found |= dict.fromkeys(row)
            for ours, theirs in names.items():
                if theirs in found and ours not in texts and ours != "meta":
                    texts[ours] = [None] * number
        for ours, values in texts.items():
            try:
                values.append(_value(row.get(names[ours]), ours, names[ours], where))
            except UserError as error:
                problems.setdefault(ours, str(error))
                values.append(None)
        about = each if isinstance(each := row.get("meta"), dict) else {}
        if fields:
            about = {field: row[field] for field in fields if field in row} | about
        for field in about.keys() - meta.keys():
            meta[field] = [None] * number
        for field, values in meta.items():
            values.append(about.get(field))
    columns: dict[str, Any] = {"": pa.nulls(number + 1)}
    columns |= {ours: pa.array(values, pa.string()) for ours, values in texts.items() if values.count(None) <= number}
    if meta:
        columns["meta"] = _struct({field: _inferred(name, field, values) for field, values in meta.items()})
    return _Part(pa.table(columns), list(found), problems)


def _value(value: Any, ours: str, theirs: str, where: str) -> str | None:
    """Return a value of a column as text, a conversation as JSON; None if there is none, as in a CSV without an id."""
    if value is None or (ours == "id" and value == ""):
        return None
    if ours in _CHATS:
        return _conversation(value, theirs, where)
    if ours == "id" or isinstance(value, str):
        return str(value)
    raise UserError(f"{where}: `{theirs}` is not text; correct it")


def _inferred(name: str, field: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise UserError(f"{name}: `meta.{field}` has values of several types ({error}); give it one") from error


def _struct(fields: Mapping[str, Any]) -> pa.StructArray:
    whole = [each.combine_chunks() if isinstance(each, pa.ChunkedArray) else each for each in fields.values()]
    return pa.StructArray.from_arrays(whole, list(fields))


def _struct_fields(column: pa.ChunkedArray | None) -> dict[str, pa.Array]:
    if column is None or not pa.types.is_struct(column.type):
        return {}
    return {field.name: pc.struct_field(column, field.name) for field in column.type}


def _conversation(value: Any, column: str, where: str) -> str:
    """Return a conversation as JSON: a list of messages with `role`, `content` and whatever else they have."""
    if isinstance(value, str):  # as CSV has it
        value, _ = parse_json(value, f"{where}: `{column}`")
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: `{column}` is no list of messages; correct it")
    messages = [_message(each, f"{where}: message {number} of `{column}`") for number, each in enumerate(value, 1)]
    return json.dumps(messages, default=str)


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise UserError(f"{where} is no object with role and content; correct it")
    given = {key: each for key, each in value.items() if each is not None}
    if "from" in given and "role" not in given:
        speaker = str(given.pop("from"))
        if speaker.lower() not in _SPEAKERS:
            raise UserError(f"{where}: {speaker!r} is no known speaker; use {', '.join(_SPEAKERS)}")
        given = {"role": _SPEAKERS[speaker.lower()], "content": given.pop("value", None)} | given
    content = given.get("content")
    if isinstance(content, list):  # parts, as multimodal data has them
        content = "".join(_parts(content, where))
    if not isinstance(given.get("role"), str) or not isinstance(content, str):
        raise UserError(f"{where} has no role, or no text as its content; correct it")
    return given | {"content": content}


def _parts(content: Sequence[Any], where: str) -> Iterator[str]:
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise UserError(f"{where} has content that is no text, which no model here reads; leave it out")
        yield text
