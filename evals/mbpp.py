"""MBPP: write a function from one sentence and three tests, 3-shot; pass@k.

The prompt equals that of the MBPP paper and lm-evaluation-harness byte for byte: worked examples are tasks 2, 3 and 4
with the file's own line ends (CRLF); the test set is ids 11-510. The program is the completion, cut at the first stop
string, a newline, and the tests.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from data_builders.benchmarks.mbpp import MbppProblem, parse_python, read_mbpp
from data_builders.errors import UserError
from evals.code_scores import PASS_AT_K, ProgramsTask, compare_code, expected_files, score_programs
from evals.sandbox import Journal, Program, Reference
from evals.sandbox.differential import FOUND
from evals.task import Completions, RecordSet, Request, Scores, describe

FORMAT = "official"
EXEMPLARS = (2, 3, 4)
TEST_IDS = range(11, 511)
STOPS = ("[DONE]",)
NUM_SHOWN_TESTS = 3


@dataclass(frozen=True)
class MbppRecord:
    """A problem and the worked examples shown before it."""

    problem: MbppProblem
    shots: tuple[MbppProblem, ...]

    @property
    def id(self) -> str:
        """Return the id of the request."""
        return f"mbpp/{self.problem.task_id}"


@dataclass(frozen=True)
class MbppTask(ProgramsTask[MbppRecord]):
    """MBPP, full, sanitized or MBPP+: Python functions from a sentence and three tests, 3-shot, pass@k.

    Attributes:
        subset: `full`, `sanitized` or `plus` (the file of EvalPlus); their scores are not comparable.
        shots: worked examples, at most 3.
        split: `test`: ids 11-510 (with `plus`: all); `all`: every problem. Worked examples are always left out.
        test_setup_code: whether to run a problem's set-up code (`full`) between the solution and its tests. The
            reference harness does not. The test imports of `sanitized` are always run.
        max_new_tokens: per completion; the reference harness has 256.
    """

    name: ClassVar[str] = "mbpp"
    version: ClassVar[int] = 2
    subset: Literal["full", "sanitized", "plus"] = "full"
    shots: int = 3
    split: Literal["test", "all"] = "test"
    test_setup_code: bool = False
    max_new_tokens: int = 256

    def read(self, data: Path, limit: int | None) -> list[MbppRecord]:
        """Read the problems from a file or the folder that holds it; each record includes the worked examples."""
        if not 0 <= self.shots <= len(EXEMPLARS):
            raise UserError(f"shots={self.shots} must be in 0..{len(EXEMPLARS)}, the examples that the format has")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} is too small; use at least 1")
        problems = read_mbpp(data, self.subset)
        by_id = {problem.task_id: problem for problem in problems}
        if missing := [each for each in EXEMPLARS[: self.shots] if each not in by_id]:
            raise UserError(f"{data}: task {missing[0]}, which is shown as an example, is missing; use --shots 0")
        shots = tuple(by_id[each] for each in EXEMPLARS[: self.shots])
        ids = TEST_IDS if self.split == "test" and self.subset != "plus" else by_id.keys()
        chosen = [MbppRecord(each, shots) for each in problems if each.task_id in ids and each not in shots]
        if not chosen:
            raise UserError(f"{data}: no task of split={self.split!r} beside the examples; is it the right file?")
        return chosen[:limit]

    def requests(self, records: Sequence[MbppRecord]) -> list[Request]:
        """Return one request per problem."""
        return [
            Request(
                record.id,
                render_question(record.problem),
                self.max_new_tokens,
                () if self.as_given else STOPS,
                tuple(render_shot(shot) for shot in record.shots),
                self.num_samples,
                reference=record.problem.code,
            )
            for record in records
        ]

    def run(
        self, records: Sequence[MbppRecord], requests: Sequence[Request], completions: Completions, journal: Journal
    ) -> Scores:
        """Score completions; run only those whose verdict is not in the journal."""
        first = records[0]
        source = first.problem.source
        exemplars = tuple(f"mbpp/{shot.task_id}" for shot in first.shots)
        files = expected_files((_reference(record) if record.problem.inputs else None for record in records), journal)
        with_setup = self.test_setup_code or self.subset == "sanitized"
        return score_programs(
            requests,
            completions,
            programs=[_program(record.problem, with_setup, file) for record, file in zip(records, files, strict=True)],
            references=[record.problem.code for record in records],
            k=self.k,
            limits=self.limits(self.subset == "plus"),
            protocol=describe(
                FORMAT,
                requests,
                {"pass@k": PASS_AT_K},
                self.split,
                [RecordSet("mbpp", requests[0].shots, exemplars, {source.file: source.sha256})],
                subset=self.subset,
                test_setup_code="run before the tests" if with_setup else "not run",
            ),
            journal=journal,
        )


def render_question(problem: MbppProblem) -> str:
    """Return the prompt of one problem."""
    tests = "\n".join(problem.tests[:NUM_SHOWN_TESTS])
    return (
        f"You are an expert Python programmer, and here is your task: {problem.text}"
        f" Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def render_shot(problem: MbppProblem) -> str:
    """Return a worked example with the separator that follows it."""
    return f"{render_question(problem)}{problem.code}\n[DONE]\n\n"


def _program(problem: MbppProblem, with_setup: bool, expected: str) -> Program:
    """Return the program to which a completion is appended.

    Names that the reference solution defines come from the program. Modules that it imports, and modules of the
    standard library, are imported for the tests if the program binds their names too.
    """
    if expected:
        tests = compare_code("mbpp", problem.entry_point, problem.inputs, problem.atol)
        return Program("", tests, names=(problem.entry_point,), expected=expected)
    tests = "\n".join([problem.setup, *problem.tests] if with_setup else problem.tests)
    used = {node.id for node in ast.walk(parse_python(tests)) if isinstance(node, ast.Name)}
    defined, imported = _bound_names(problem.code)
    imported = {name: f"import {name}" for name in used & sys.stdlib_module_names - defined} | imported
    modules = tuple((name, statement) for name, statement in sorted(imported.items()) if name in used)
    return Program("", problem.test or tests, names=tuple(sorted(used & defined)), modules=modules)


def _reference(record: MbppRecord) -> Reference:
    problem = record.problem
    return Reference(record.id, problem.code, problem.entry_point, repr(problem.inputs), problem.entry_point in FOUND)


def _bound_names(code: str) -> tuple[set[str], dict[str, str]]:
    """Return the names that a solution defines, and the import statement of each name that it imports."""
    defined, imported = set(), {}
    for node in parse_python(code).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                imported[alias.asname or alias.name.partition(".")[0]] = ast.unparse(node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        else:
            defined |= {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
    return defined, imported
