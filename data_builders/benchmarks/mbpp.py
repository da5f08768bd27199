"""Read MBPP: full (974 problems) and sanitized (427) as published by Google, and MBPP+ (378) of EvalPlus."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import UserError
from data_builders.hub import is_hub, read_hub
from data_builders.row_files import Fields, Row, Source, find_file, read_rows

FILES = {"full": ("mbpp.jsonl",), "sanitized": ("sanitized-mbpp.json",), "plus": ("MbppPlus.jsonl",)}
_FIELDS: dict[str, Fields] = {
    "full": {"task_id": int, "text": str, "code": str, "test_list": list, "test_setup_code": str},
    "sanitized": {"task_id": int, "prompt": str, "code": str, "test_list": list, "test_imports": list},
    "plus": {
        "task_id": str,
        "prompt": str,
        "entry_point": str,
        "canonical_solution": str,
        "assertion": str,
        "base_input": list,
        "plus_input": (list, dict),  # {} where there is none
        "atol": (int, float),
    },
}
_HUB_SPLITS = ("prompt", "test", "validation", "train")
_HUB_PLUS_FIELDS: Fields = {"task_id": int, "prompt": str, "code": str, "test_list": list, "test": str}
MIN_TESTS = 3


@dataclass(frozen=True)
class MbppProblem:
    """One problem, with the wording and line ends of the file.

    Attributes:
        setup: code that the tests need, to run after the solution.
        inputs: argument lists (only of MBPP+ from its file).
        test: a program that runs all tests (only of MBPP+ from the hub).
    """

    task_id: int
    text: str
    code: str
    tests: tuple[str, ...]
    setup: str
    source: Source
    entry_point: str = ""
    inputs: tuple[Any, ...] = ()
    atol: float = 0.0
    test: str = ""


def read_mbpp(data: Path, subset: str = "full") -> list[MbppProblem]:
    """Read the problems of a subset (`full`, `sanitized`, `plus`), sorted by id: from a file, its folder, or the hub.

    Raises UserError if the data is missing, malformed or of another subset.
    """
    make = {"full": _full, "sanitized": _sanitized, "plus": _plus}[subset]
    if not is_hub(data):
        rows, source = read_rows(find_file(data, FILES[subset]), _FIELDS[subset])
    elif subset == "plus":
        rows, source = read_hub(data, None, ("test",), _HUB_PLUS_FIELDS)
        make = _hub_plus
    else:
        rows, source = read_hub(data, subset, _HUB_SPLITS, _FIELDS[subset])
    problems = sorted((_made(make, row, source, data) for row in rows), key=lambda problem: problem.task_id)
    if len({problem.task_id for problem in problems}) != len(problems):
        raise UserError(f"{data}: a task_id appears twice; get the file again")
    for problem in problems:
        _require_usable(problem, f"{data}, task {problem.task_id}")
    return problems


def parse_python(code: str) -> ast.Module:
    """Parse the dataset's code, without warnings about its escape sequences; raises what `ast.parse` raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _require_usable(problem: MbppProblem, where: str) -> None:
    if len(problem.tests) < MIN_TESTS:
        raise UserError(f"{where}: fewer than {MIN_TESTS} tests; is it the right file?")
    try:
        for code in (problem.code, problem.setup, *problem.tests):
            parse_python(code)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{where}: its code or a test is no Python ({error}); is it the right file?") from None


def _made(make: Callable[[Row, Source], MbppProblem], row: Row, source: Source, data: Path) -> MbppProblem:
    """Return the problem of a row; raises UserError if a field has an invalid value."""
    try:
        return make(row, source)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        name = str(row["task_id"])[:60]
        raise UserError(f"{data}, task {name}: cannot be used ({error}); is it the right file?") from None


def _full(row: Row, source: Source) -> MbppProblem:
    tests = tuple(row["test_list"])
    return MbppProblem(row["task_id"], row["text"], row["code"], tests, row["test_setup_code"], source)


def _sanitized(row: Row, source: Source) -> MbppProblem:
    setup = "\n".join(row["test_imports"])
    return MbppProblem(row["task_id"], row["prompt"], row["code"], tuple(row["test_list"]), setup, source)


def _hub_plus(row: Row, source: Source) -> MbppProblem:
    tests = tuple(row["test_list"])
    return MbppProblem(row["task_id"], row["prompt"], row["code"], tests, "", source, test=row["test"])


def _plus(row: Row, source: Source) -> MbppProblem:
    task_id = int(row["task_id"].rpartition("/")[2])
    text = row["prompt"].strip().strip('"').strip().partition("\nassert ")[0]
    tests = tuple(line for line in row["assertion"].splitlines() if line.startswith("assert "))
    restore = _RESTORE.get(task_id, lambda arguments: arguments)
    return MbppProblem(
        task_id,
        text,
        row["canonical_solution"].strip("\n"),
        tests,
        "",
        source,
        row["entry_point"],
        tuple(restore(arguments) for arguments in (*row["base_input"], *row["plus_input"])),
        float(row["atol"]),
    )


def _tuples(value: Any, depth: int) -> Any:
    """Turn the lists that are `depth` levels down into tuples."""
    if depth == 0:
        return tuple(value)
    return [_tuples(item, depth - 1) for item in value]


def _all_tuples(value: Any) -> Any:
    return tuple(_all_tuples(item) for item in value) if isinstance(value, list) else value


# JSON has only lists: restore the argument types of these tasks as EvalPlus does (evalplus/data/mbpp.py).
_RESTORE: dict[int, Callable[[list[Any]], Any]] = {
    115: lambda x: [[set(item) if isinstance(item, list) and item else {} for item in x[0]]],
    124: lambda x: (float(x[0]), complex(x[1])),
    252: lambda x: [complex(x[0])],
    278: lambda x: [tuple(tuple(item) if isinstance(item, list) else item for item in x[0])],
    307: lambda x: [tuple(x[0]), x[1], x[2]],
    722: lambda x: [{key: tuple(value) for key, value in x[0].items()}, *x[1:]],
    **dict.fromkeys((106, 750), lambda x: [x[0], tuple(x[1])]),
    **dict.fromkeys((75, 413, 444, 753), lambda x: [_tuples(x[0], 1), x[1]]),
    **dict.fromkeys((250, 405, 446, 617, 720, 763, 808), lambda x: [tuple(x[0]), x[1]]),
    **dict.fromkeys((259, 401, 445), lambda x: [tuple(tuple(item) for item in part) for part in x]),
    **dict.fromkeys((580, 615, 791), _all_tuples),
    **dict.fromkeys(
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424) + (429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
        lambda x: _tuples(x, 1),
    ),
    **dict.fromkeys((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), lambda x: _tuples(x, 2)),
}
