"""Many programs, judged side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from data_builders.workers import usable_cores
from evals.sandbox.confinement import private_memory
from evals.sandbox.detection import detect
from evals.sandbox.isolation import Isolation
from evals.sandbox.program import Limits, Program, Verdict
from evals.sandbox.supervisor import run_alone


def run_programs(
    programs: Sequence[Program],
    limits: Limits | None = None,
    isolation: Isolation | None = None,
    workers: int | None = None,
    on_verdict: Callable[[int], None] | None = None,
) -> list[Verdict]:
    """Judge programs side by side; one that takes too long or cannot start is tried again when no other runs.

    Args:
        isolation: the strongest that works here, unless given.
        workers: programs at a time; at most, and by default, one for each core this process may use.
        on_verdict: called with the number of programs judged so far.
    """
    limits, isolation = limits or Limits(), isolation or detect()
    cores = usable_cores()
    verdicts: list[Verdict] = []
    # Bubblewrap and Landlock keep a program from this process's memory, which has the tests and nonces of all.
    with nullcontext() if isolation.bubblewrap or isolation.landlock else private_memory():
        with ThreadPoolExecutor(max(1, min(workers or cores, cores))) as pool:
            for verdict in pool.map(lambda program: run_alone(program, limits, isolation), programs):
                verdicts.append(verdict)
                if on_verdict:
                    on_verdict(len(verdicts))
        return [
            run_alone(program, limits, isolation) if verdict.status in ("timeout", "refused") else verdict
            for program, verdict in zip(programs, verdicts, strict=True)
        ]
