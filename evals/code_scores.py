"""What tasks on generated programs have in common: options, running the samples, pass@k with its standard error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any, Protocol, runtime_checkable

from data_builders.errors import DataError
from evals.sandbox import Journal, Limits, Program, Reference, Verdict, detect, expected_results
from evals.stops import before_stops
from evals.task import Completions, Request, Scores

PASS_AT_K = {"name": "pass@k", "signature": "estimator:unbiased|mean:problems|unit:percent"}
LIMITS = Limits()
PLUS_LIMITS = Limits(timeout=60.0, memory=4 * 2**30)  # those of EvalPlus for a problem


@runtime_checkable
class RunsPrograms(Protocol):
    """A task that scores completions by running them."""

    def score_into(self, records: Sequence[Any], completions: Completions, journal: Journal) -> Scores:
        """Score completions as `Task.score` does, with the verdicts that a journal has and keeps."""
        ...


def require_samples(k: Sequence[int], num_samples: int, timeout: float | None) -> None:
    """Raise DataError where a pass@k is asked for that so many samples cannot tell, or a timeout is none."""
    if num_samples < 1:
        raise DataError(f"num_samples={num_samples} is too small; use at least 1")
    if not k or len(set(k)) != len(k) or min(k) < 1 or max(k) > num_samples:
        raise DataError(f"k={list(k)}: each k must appear once and be in 1..{num_samples}; raise num_samples")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise DataError(f"timeout={timeout} must be a positive number of seconds")


def compare_code(benchmark: str, entry_point: str, inputs: Sequence[Any], atol: float) -> str:
    """Return tests that compare a function with the results that are expected, as EvalPlus does."""
    return (
        "from evals.sandbox.differential import require_same\n"
        "inf, nan = float('inf'), float('nan')\n"
        f"require_same({benchmark!r}, {entry_point!r}, {entry_point}, {inputs!r}, {atol!r})"
    )


def expected_files(references: Iterable[Reference | None], journal: Journal) -> list[str]:
    """Return the files with the results of reference solutions, "" where there is none."""
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
    """Run every completion, up to the first stop string, and return pass@k in percent.

    Args:
        programs: what each request's completions are appended to.
        references: a right completion of each request.
        journal: keeps the verdicts.

    Raises:
        DataError: the sandbox did not start.
    """
    texts = [(text, request.stop) for request in requests for text in completions[request.id]]
    kept = [before_stops(text, stops) for text, stops in texts]
    bases = [program for request, program in zip(requests, programs, strict=True) for _ in completions[request.id]]
    whole = [replace(program, code=program.code + text) for program, text in zip(bases, kept, strict=True)]
    isolation = detect()
    verdicts = journal.judge(whole, limits, isolation)
    if refused := next((verdict for verdict in verdicts if verdict.status == "refused"), None):
        raise DataError(f"the sandbox does not start here: {refused.detail}; `calmctl doctor` says what it needs")
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
