"""Rows of HumanEval and MBPP as their files have them, and scores of answers to them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from evals.task import Scores, Task

DATA = Path(os.environ.get("CALMCTL_DATA", "") or "/nonexistent")
HUMANEVAL_ROW = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\n\ndef helper(x):\n    return x\n\n\ndef twice(x: int) -> int:\n    """ Double it. """\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * helper(x)\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n"
    "    assert candidate(2) == helper(4)\n    assert twice(0) == 0\n",
}


def mbpp_row(task_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "text": f"Write a function to add {task_id}.",
        "code": f"import sys\r\ndef add(x):\r\n  return x + {task_id} ",
        "test_list": [f"assert add({x}) == {x + task_id}" for x in (1, 2)] + ["assert add(0) < sys.maxsize "],
        "test_setup_code": "",
        "challenge_test_list": [],
    } | changes


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def score(task: Task[Any], data: Path, *answers: str) -> Scores:
    """Score the same answers for every record."""
    records = task.load(data)
    return task.score(records, {request.id: answers for request in task.requests(records)})


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"CALMCTL_DATA is no folder with {name}")
    return DATA / name
