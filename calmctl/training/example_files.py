"""Training rows of any source as one table, conversations rendered."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.chat import ChatTemplate
from data_builders.example_rows import read_example_rows
from data_builders.row_forms import messages_of


def read_examples(
    source: str, tokenizer: PreTrainedTokenizerBase, columns: Mapping[str, str] | None = None
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Read what is trained on: a table with `prompt` and `completion`, or `text`, and `meta` if rows have any.

    A conversation becomes one example for each answer of the assistant.

    Args:
        columns: our name of a column -> its name in the files.

    Returns:
        The table, and the row of the source that each of its rows comes from, counted from 1.

    Raises:
        UserError: see `read_example_rows`, and `ChatTemplate`.
    """
    table = read_example_rows(source, columns)
    if "messages" not in table.column_names:
        return table, np.arange(1, table.num_rows + 1)
    template = ChatTemplate(tokenizer)
    rows, prompts, completions = [], [], []
    for number, messages in enumerate(table["messages"].to_pylist(), 1):
        try:
            answers = list(template.answers(messages_of(messages)))
        except UserError as error:
            raise UserError(f"{source}: row {number}: {error}") from None
        if not answers:
            raise UserError(
                f"{source}: row {number} has no message of the assistant after another to learn; leave it out"
            )
        for prompt, completion in answers:
            rows.append(number)
            prompts.append(prompt)
            completions.append(completion)
    numbers = np.asarray(rows, np.int64)
    rendered = {"prompt": pa.array(prompts, pa.string()), "completion": pa.array(completions, pa.string())}
    if "meta" in table.column_names:
        rendered["meta"] = table["meta"].take(pa.array(numbers - 1))
    return pa.table(rendered), numbers


def meta_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the fields of the rows' `meta`, each (rows,)."""
    if not (names := _meta_fields(table)):
        return {}
    meta = table["meta"].combine_chunks()
    return {name: meta.field(name).to_numpy(zero_copy_only=False) for name in names}


def _meta_fields(table: pa.Table) -> list[str]:
    kind = table.schema.field("meta").type if "meta" in table.column_names else None
    return [field.name for field in kind] if kind is not None and pa.types.is_struct(kind) else []


def open_ended(source: str, table: pa.Table) -> list[bool]:
    """Return for each row whether its `meta.open_ended` says that the text goes on; False without one.

    Raises:
        UserError: a value is neither true nor false.
    """
    if "open_ended" not in _meta_fields(table):
        return [False] * table.num_rows
    said = pc.struct_field(table["meta"], "open_ended").to_pylist()
    if unclear := [row for row, value in enumerate(said, 1) if value not in (None, True, False)]:
        raise UserError(f"{source}: row {unclear[0]}: `meta.open_ended` is {said[unclear[0] - 1]!r}; say true or false")
    return list(map(bool, said))
