"""HumanEval: complete a function from its signature and docstring, zero-shot; pass@k over hidden tests.

Prompt and stops are those of lm-evaluation-harness, which are the Codex paper's; a completion counts up to the first
stop. The program is `prompt + completion`, then a new line, `test`, a new line and `check(entry_point)`.
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
        subset: `base`, or `plus` for HumanEval+ (the file of EvalPlus: its inputs, against its reference solutions).
    """

    name: ClassVar[str] = "humaneval"
    version: ClassVar[int] = 2
    subset: Literal["base", "plus"] = "base"

    def read(self, data: Path, limit: int | None) -> list[HumanEvalProblem]:
        """Read the problems of a file, or of a folder that holds it."""
        return read_humaneval(data, self.subset)[:limit]

    def requests(self, records: Sequence[HumanEvalProblem]) -> list[Request]:
        """Return one request per problem: its prompt, as it is."""
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
        """Run every completion whose verdict the journal does not have."""
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
    """Return the program of a completion; helpers that the prompt defines are the tests' own, not the program's.

    Args:
        expected: the file with the results of the reference solution, for problems with inputs.
    """
    name = problem.entry_point
    tests = (
        compare_code("humaneval", name, problem.inputs, problem.atol) if expected else f"{problem.test}\ncheck({name})"
    )
    return Program(problem.prompt + completion, tests, setup=_setup(problem), names=(name,), expected=expected)


def _setup(problem: HumanEvalProblem) -> str:
    """Return what defines the prompt's helpers: the prompt, which is no function yet if it ends with a signature."""
    try:
        ast.parse(problem.prompt)
    except SyntaxError:
        return problem.prompt + problem.canonical_solution
    return problem.prompt


def _reference(problem: HumanEvalProblem) -> Reference:
    code = problem.prompt + problem.canonical_solution
    return Reference(problem.task_id, code, problem.entry_point, repr(problem.inputs))
