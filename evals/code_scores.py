"""What tasks on generated programs have in common: options, running the samples, pass@k with its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from data_builders.errors import DataError
from data_builders.json_rows import Source
from evals.sandbox import Limits, Program, Verdict, detect, run_programs
from evals.task import Scores

PASS_AT_K = "pass@k|estimator:unbiased|mean:problems|unit:percent"


def require_samples(k: Sequence[int], num_samples: int, timeout: float | None) -> None:
    """Raise DataError where a pass@k is asked for that so many samples cannot tell, or a timeout is none."""
    if num_samples < 1:
        raise DataError(f"num_samples={num_samples} is too small; use at least 1")
    if not k or len(set(k)) != len(k) or min(k) < 1 or max(k) > num_samples:
        raise DataError(f"k={list(k)}: each k must appear once and be in 1..{num_samples}; raise num_samples")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise DataError(f"timeout={timeout} must be a positive number of seconds")


def score_programs(
    programs: dict[str, list[Program]],
    samples: list[dict[str, Any]],
    k: Sequence[int],
    limits: Limits,
    source: Source,
    protocol: dict[str, Any],
) -> Scores:
    """Run the programs of every problem and return pass@k in percent.

    Args:
        programs: those of a problem, by request id.
        samples: a row for each program, in the same order; the verdict is added.
    """
    verdicts = run_programs([program for each in programs.values() for program in each], limits)
    remaining = iter(verdicts)
    outcomes = [[next(remaining).passed for _ in each] for each in programs.values()]
    metrics = {f"pass@{each}": 100.0 * _mean(outcomes, each) for each in k}
    return Scores(
        metrics=metrics,
        n=len(programs),
        breakdown={
            "statuses": _statuses(verdicts),
            "standard_error": {name: _standard_error(outcomes, int(name[5:])) for name in metrics},
        },
        protocol={
            **protocol,
            "metric": PASS_AT_K,
            "k": list(k),
            "timeout_seconds": limits.timeout,
            "isolation": detect().name,
            "data": {"file": source.file, "sha256": source.sha256},
            "scored": len(programs),
            "skipped": source.rows - len(programs),
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
