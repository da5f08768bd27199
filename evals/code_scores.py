"""Base of the code-generation tasks: their options, running the samples, pass@k with standard errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

from data_builders.errors import UserError
from evals.sandbox import (
    Journal,
    Limits,
    Program,
    Reference,
    Verdict,
    detect,
    expected_results,
    require_permission,
)
from evals.task import Completions, Record, Request, Scores, Task, before_stops

PASS_AT_K = {"name": "pass@k", "signature": "estimator:unbiased|mean:problems|unit:percent"}
LIMITS = Limits()
PLUS_LIMITS = Limits(timeout=60.0, memory=4 * 2**30)  # EvalPlus's limits for a problem


@dataclass(frozen=True)
class ProgramsTask(Task[Record]):
    """Base of tasks that score completions by running them.

    Attributes:
        k: the values of k in pass@k.
        num_samples: completions per problem.
        as_given: run whole completions, not cut at stop strings: for complete programs, of which a cut leaves nothing.
        timeout: seconds per program; null: 3 (as the reference harness), 60 for the subset `plus`.
        allow_code_execution: whether model-written programs may run.
    """

    k: tuple[int, ...] = (1,)
    num_samples: int = 1
    as_given: bool = False
    timeout: float | None = None
    allow_code_execution: bool = False

    def load(self, data: Path, limit: int | None = None) -> list[Record]:
        """Check permission and options, then read the problems from a file or the folder that holds it."""
        require_permission(self.allow_code_execution, self.name)
        require_samples(self.k, self.num_samples, self.timeout)
        return super().load(data, limit)

    def checked_requests(self, records: Sequence[Record], completions: Completions) -> list[Request]:
        """Check completions as every task does; raise UserError also if programs may not run."""
        require_permission(self.allow_code_execution, self.name)
        return super().checked_requests(records, completions)

    def judge(self, records: Sequence[Record], requests: Sequence[Request], completions: Completions) -> Scores:
        """Run every completion with the tests of its problem."""
        return self.run(records, requests, completions, Journal())

    def score_into(self, records: Sequence[Record], completions: Completions, journal: Journal) -> Scores:
        """Score completions as `score` does; take known verdicts from a journal and add new ones to it."""
        return self.run(records, self.checked_requests(records, completions), completions, journal)

    @abstractmethod
    def run(
        self, records: Sequence[Record], requests: Sequence[Request], completions: Completions, journal: Journal
    ) -> Scores:
        """Score completions; run only those whose verdict is not in the journal."""

    def limits(self, is_plus: bool) -> Limits:
        """Return a program's resource limits, EvalPlus's if `is_plus`; the task's timeout, if set, replaces theirs."""
        limits = PLUS_LIMITS if is_plus else LIMITS
        return replace(limits, timeout=self.timeout or limits.timeout)


def require_samples(k: Sequence[int], num_samples: int, timeout: float | None) -> None:
    """Raise UserError unless each k is unique and in 1..num_samples, and a timeout is positive and finite."""
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples} is too small; use at least 1")
    if not k or len(set(k)) != len(k) or min(k) < 1 or max(k) > num_samples:
        raise UserError(f"k={list(k)}: each k must appear once and be in 1..{num_samples}; raise num_samples")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise UserError(f"timeout={timeout} must be a positive number of seconds")


def compare_code(benchmark: str, entry_point: str, inputs: Sequence[Any], atol: float) -> str:
    """Return test code that compares a function's results with the expected ones, as EvalPlus does."""
    return (
        "from evals.sandbox.differential import require_same\n"
        "inf, nan = float('inf'), float('nan')\n"
        f"require_same({benchmark!r}, {entry_point!r}, {entry_point}, {inputs!r}, {atol!r})"
    )


def expected_files(references: Iterable[Reference | None], journal: Journal) -> list[str]:
    """Return the path of each reference solution's results file, "" for None."""
    wanted = list(references)
    real = [each for each in wanted if each is not None]
    files = iter(expected_results(real, lambda done: journal.progress.step("running references", done, len(real))))
    return [next(files) if each is not None else "" for each in wanted]


def score_programs(
    requests: Sequence[Request],
    completions: Completions,
    programs: Sequence[Program],
    references: Sequence[str],
    k: Sequence[int],
    limits: Limits,
    protocol: dict[str, Any],
    journal: Journal,
) -> Scores:
    """Run every completion, cut at its first stop string, and return pass@k in percent.

    Args:
        programs: one per request; its completions are appended to the program's code.
        references: one correct completion per request.
        journal: known verdicts; new ones are added.

    Raises:
        UserError: the sandbox did not start.
    """
    texts = [(text, request.stop) for request in requests for text in completions[request.id]]
    kept = [before_stops(text, stops) for text, stops in texts]
    bases = [program for request, program in zip(requests, programs, strict=True) for _ in completions[request.id]]
    whole = [replace(program, code=program.code + text) for program, text in zip(bases, kept, strict=True)]
    isolation = detect()
    verdicts = journal.judge(whole, limits, isolation)
    if refused := next((verdict for verdict in verdicts if verdict.status == "refused"), None):
        raise UserError(f"the sandbox does not start here: {refused.detail}; `calmctl doctor` says what it needs")
    remaining = iter(verdicts)
    outcomes = [[next(remaining).passed for _ in completions[request.id]] for request in requests]
    samples = [
        {"id": request.id, "sample": number, "prompt": request.text, "completion": text, "reference": reference}
        for request, reference in zip(requests, references, strict=True)
        for number, text in enumerate(completions[request.id])
    ]
    metrics = {f"pass@{each}": 100.0 * _mean(outcomes, each) for each in k}
    return Scores(
        metrics=metrics,
        n=len(requests),
        breakdown={
            "statuses": _statuses(verdicts),
            "cut_to_nothing": sum(
                bool(text.strip() and not cut.strip()) for (text, _), cut in zip(texts, kept, strict=True)
            ),
            "standard_error": {name: _standard_error(outcomes, int(name[5:])) for name in metrics},
        },
        protocol={
            **protocol,
            "k": list(k),
            "num_samples": requests[0].num_samples,
            "post_processing": "none but the cut at the first stop string" if requests[0].stop else "none",
            "timeout_seconds": limits.timeout,
            "isolation": isolation.name,
        },
        samples=[
            {**row, "correct": verdict.passed, **verdict.as_row()}
            for row, verdict in zip(samples, verdicts, strict=True)
        ],
    )


def _mean(outcomes: list[list[bool]], k: int) -> float:
    from evals.metrics.pass_at_k import mean_pass_at_k

    return mean_pass_at_k(outcomes, k)


def _standard_error(outcomes: list[list[bool]], k: int) -> float:
    """Return the standard error of the mean over problems, in percentage points."""
    values = [_mean([each], k) for each in outcomes]
    mean = sum(values) / len(values)
    return 100.0 * sqrt(sum((value - mean) ** 2 for value in values)) / len(values)


def _statuses(verdicts: Sequence[Verdict]) -> dict[str, int]:
    statuses = [verdict.status for verdict in verdicts]
    return {status: statuses.count(status) for status in sorted(set(statuses))}
