"""HumanEval (164 problems) as OpenAI published it, and HumanEval+ as EvalPlus publishes it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import DataError
from data_builders.json_rows import Fields, Source, find_file, read_rows

FILES = {"base": ("HumanEval.jsonl",), "plus": ("HumanEvalPlus.jsonl",)}
_FIELDS: Fields = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str}
_PLUS_FIELDS: Fields = {**_FIELDS, "base_input": list, "plus_input": list, "atol": (int, float)}


@dataclass(frozen=True)
class HumanEvalProblem:
    """One problem: `prompt + canonical_solution` passes; `inputs` are argument lists (HumanEval+ only)."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str
    source: Source
    inputs: tuple[Any, ...] = ()
    atol: float = 0.0


def read_humaneval(data: Path, subset: str = "base") -> list[HumanEvalProblem]:
    """Read the problems of a file, or of the file of a subset (`base`, `plus`) in a folder.

    Raises DataError where the file is missing, malformed or of the other subset.
    """
    path = find_file(data, FILES[subset])
    rows, source = read_rows(path, _PLUS_FIELDS if subset == "plus" else _FIELDS)
    if subset == "base" and "plus_input" in rows[0]:
        raise DataError(f"{path} is HumanEval+; score it with subset=plus, or name HumanEval.jsonl.gz")
    if len({row["task_id"] for row in rows}) != len(rows):
        raise DataError(f"{path}: a task_id appears twice; download the file again")
    for row in rows:
        try:
            ast.parse(row["prompt"])
        except (SyntaxError, ValueError) as error:
            raise DataError(
                f"{path}, {row['task_id']}: the prompt is no Python ({error}); is it the right file?"
            ) from None
    return [
        HumanEvalProblem(
            **{field: row[field] for field in _FIELDS},
            source=source,
            inputs=(*row["base_input"], *row["plus_input"]) if subset == "plus" else (),
            atol=float(row["atol"]) if subset == "plus" else 0.0,
        )
        for row in rows
    ]
