"""HumanEval: complete a function from its signature and docstring, zero-shot; pass@k over hidden tests.

Prompt, stops and post-processing (none) are those of lm-evaluation-harness, which are the Codex paper's. The program is
`prompt + completion`, then a new line, `test`, a new line and `check(entry_point)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from data_builders.humaneval import HumanEvalProblem, read_humaneval
from evals.code_scores import require_samples, score_programs
from evals.sandbox import Limits, Program, require_permission
from evals.task import Completions, Request, Scores, require_completions, require_limit

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
MAX_NEW_TOKENS = 1024
_LIMITS = Limits()
_PLUS_LIMITS = Limits(timeout=60.0, memory=4 * 2**30)  # those of EvalPlus for a problem


@dataclass(frozen=True)
class HumanEvalTask:
    """HumanEval and HumanEval+: Python functions from their docstrings, zero-shot, pass@k.

    Attributes:
        subset: `base`, or `plus` for HumanEval+ (the file of EvalPlus: its inputs, against its reference solutions).
        k: the values of k in pass@k.
        num_samples: completions of each problem.
        timeout: seconds for one program; null: 3 (as the reference harness), 60 for `plus`.
        allow_code_execution: whether programs that a model wrote may run.
    """

    name: ClassVar[str] = "humaneval"
    version: ClassVar[int] = 1
    subset: Literal["base", "plus"] = "base"
    k: tuple[int, ...] = (1,)
    num_samples: int = 1
    timeout: float | None = None
    allow_code_execution: bool = False

    def load(self, data: Path, limit: int | None = None) -> list[HumanEvalProblem]:
        """Read the problems of a file, or of a folder that holds it."""
        require_permission(self.allow_code_execution, self.name)
        require_samples(self.k, self.num_samples, self.timeout)
        require_limit(limit)
        return read_humaneval(data, self.subset)[:limit]

    def requests(self, records: Sequence[HumanEvalProblem]) -> list[Request]:
        """Return one request per problem: its prompt, as it is."""
        return [
            Request(record.task_id, record.prompt, MAX_NEW_TOKENS, STOPS, num_samples=self.num_samples)
            for record in records
        ]

    def score(self, records: Sequence[HumanEvalProblem], completions: Completions) -> Scores:
        """Run every completion with the tests of its problem."""
        require_permission(self.allow_code_execution, self.name)
        require_completions(self.requests(records), completions)
        return score_programs(
            programs={
                record.task_id: [program(record, text) for text in completions[record.task_id]] for record in records
            },
            samples=[
                {
                    "id": record.task_id,
                    "sample": number,
                    "prompt": record.prompt,
                    "completion": text,
                    "reference": record.canonical_solution,
                }
                for record in records
                for number, text in enumerate(completions[record.task_id])
            ],
            k=self.k,
            limits=self._limits(),
            source=records[0].source,
            protocol={
                "format": "lme",
                "subset": self.subset,
                "shots": 0,
                "exemplars": [],
                "stops": list(STOPS),
                "max_new_tokens": MAX_NEW_TOKENS,
                "num_samples": self.num_samples,
                "post_processing": "none",
            },
        )

    def _limits(self) -> Limits:
        limits = _PLUS_LIMITS if self.subset == "plus" else _LIMITS
        return replace(limits, timeout=self.timeout or limits.timeout)


def program(problem: HumanEvalProblem, completion: str) -> Program:
    """Return the program of a completion; helpers that the prompt defines are the tests' own, not the program's."""
    name = problem.entry_point
    if problem.inputs:
        reference = problem.prompt + problem.canonical_solution
        tests = (
            "from evals.sandbox.differential import require_same\n"
            "inf, nan = float('inf'), float('nan')\n"
            f"require_same('humaneval', {name!r}, {name}, {reference!r}, {problem.inputs!r}, {problem.atol!r})"
        )
    else:
        tests = f"{problem.test}\ncheck({name})"
    return Program(problem.prompt + completion, tests, setup=problem.prompt, names=(name,))
