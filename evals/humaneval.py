"""HumanEval: complete a function from its signature and docstring, zero-shot; pass@k over hidden tests.

Prompt and stop strings are those of lm-evaluation-harness and the Codex paper; a completion is cut at the first stop
string. The program is `prompt + completion`, a newline, `test`, a newline, `check(entry_point)`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from data_builders.benchmarks.humaneval import HumanEvalProblem, read_humaneval
from evals.code_scores import PASS_AT_K, ProgramsTask, compare_code, expected_files, score_programs
from evals.sandbox import Journal, Program, Reference
from evals.task import Completions, RecordSet, Request, Scores, describe

FORMAT = "lme"
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
MAX_NEW_TOKENS = 1024


@dataclass(frozen=True)
class HumanEvalTask(ProgramsTask[HumanEvalProblem]):
    """HumanEval and HumanEval+: Python functions from their docstrings, zero-shot, pass@k.

    Attributes:
        subset: `base`, or `plus` for HumanEval+ (EvalPlus's file: compare with its reference solutions on its inputs).
    """

    name: ClassVar[str] = "humaneval"
    version: ClassVar[int] = 2
    subset: Literal["base", "plus"] = "base"

    def read(self, data: Path, limit: int | None) -> list[HumanEvalProblem]:
        """Read the problems from a file or the folder that holds it."""
        return read_humaneval(data, self.subset)[:limit]

    def requests(self, records: Sequence[HumanEvalProblem]) -> list[Request]:
        """Return one request per problem: its prompt, unchanged."""
        return [
            Request(
                record.task_id,
                record.prompt,
                MAX_NEW_TOKENS,
                () if self.as_given else STOPS,
                num_samples=self.num_samples,
                reference=record.canonical_solution,
            )
            for record in records
        ]

    def run(
        self,
        records: Sequence[HumanEvalProblem],
        requests: Sequence[Request],
        completions: Completions,
        journal: Journal,
    ) -> Scores:
        """Score completions; run only those whose verdict is not in the journal."""
        source = records[0].source
        files = expected_files((_reference(record) if record.inputs else None for record in records), journal)
        return score_programs(
            requests,
            completions,
            programs=[program(record, "", file) for record, file in zip(records, files, strict=True)],
            references=[record.canonical_solution for record in records],
            k=self.k,
            limits=self.limits(self.subset == "plus"),
            protocol=describe(
                FORMAT,
                requests,
                {"pass@k": PASS_AT_K},
                "test",
                [RecordSet("", (), (), {source.file: source.sha256})],
                subset=self.subset,
            ),
            journal=journal,
        )


def program(problem: HumanEvalProblem, completion: str, expected: str = "") -> Program:
    """Return the program of a completion; the tests use the prompt's own helper functions, not the program's.

    Args:
        expected: path of the reference solution's results, for problems with inputs.
    """
    name = problem.entry_point
    tests = (
        compare_code("humaneval", name, problem.inputs, problem.atol) if expected else f"{problem.test}\ncheck({name})"
    )
    return Program(problem.prompt + completion, tests, setup=_setup(problem), names=(name,), expected=expected)


def _setup(problem: HumanEvalProblem) -> str:
    """Return code that defines the prompt's helpers: the prompt, completed if it does not parse on its own."""
    try:
        ast.parse(problem.prompt)
    except SyntaxError:
        return problem.prompt + problem.canonical_solution
    return problem.prompt


def _reference(problem: HumanEvalProblem) -> Reference:
    code = problem.prompt + problem.canonical_solution
    return Reference(problem.task_id, code, problem.entry_point, repr(problem.inputs))
