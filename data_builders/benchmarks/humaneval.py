"""Read HumanEval (164 problems) as published by OpenAI, and HumanEval+ of EvalPlus, from a file or the hub."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import UserError
from data_builders.hub import is_hub, read_hub
from data_builders.row_files import Fields, Row, Source, find_file, read_rows

FILES = {"base": ("HumanEval.jsonl",), "plus": ("HumanEvalPlus.jsonl",)}
_FIELDS: Fields = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str}
_PLUS_TEST = "inputs = "  # on the hub, the tests of HumanEval+ contain their inputs, those of HumanEval do not
_PLUS_FIELDS: Fields = {**_FIELDS, "base_input": list, "plus_input": list, "atol": (int, float)}


@dataclass(frozen=True)
class HumanEvalProblem:
    """One problem: `prompt + canonical_solution` passes; `inputs` are argument lists (only HumanEval+ files)."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str
    source: Source
    inputs: tuple[Any, ...] = ()
    atol: float = 0.0


def read_humaneval(data: Path, subset: str = "base") -> list[HumanEvalProblem]:
    """Read the problems of a subset (`base`, `plus`) from its file, a folder with it, or the hub.

    Raises UserError if the data is missing, malformed or of the other subset.
    """
    rows, source = _rows(data, subset)
    if len({row["task_id"] for row in rows}) != len(rows):
        raise UserError(f"{data}: a task_id appears twice; get the file again")
    for row in rows:
        try:
            ast.parse(row["prompt"] + row["canonical_solution"])
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(
                f"{data}, {row['task_id']}: the prompt is no Python ({error}); is it the right file?"
            ) from None
    return [
        HumanEvalProblem(
            **{field: row[field] for field in _FIELDS},
            source=source,
            inputs=(*row.get("base_input", ()), *row.get("plus_input", ())),
            atol=float(row.get("atol", 0.0)),
        )
        for row in rows
    ]


def _rows(data: Path, subset: str) -> tuple[list[Row], Source]:
    if is_hub(data):
        rows, source = read_hub(data, None, ("test",), _FIELDS)
        is_plus = _PLUS_TEST in rows[0]["test"]
    else:
        rows, source = read_rows(find_file(data, FILES[subset]), _PLUS_FIELDS if subset == "plus" else _FIELDS)
        is_plus = "plus_input" in rows[0]
    if is_plus and subset == "base":
        raise UserError(f"{data} is HumanEval+; score it with options.subset=plus, or name HumanEval.jsonl.gz")
    if not is_plus and subset == "plus":
        raise UserError(f"{data} is not HumanEval+; name {FILES['plus'][0]} of EvalPlus, or leave out options.subset")
    return rows, source
