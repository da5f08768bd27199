"""Many programs, judged side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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
    on_final: Callable[[int, Verdict], None] | None = None,
) -> list[Verdict]:
    """Judge programs side by side; one that takes too long or cannot start is tried again when no other runs.

    Args:
        isolation: the strongest that works here, unless given.
        workers: programs at a time; at most, and by default, one for each core this process may use.
        on_verdict: called with the number of programs judged so far.
        on_final: called with the place of a program and its verdict, as soon as that stands.
    """
    limits, isolation = limits or Limits(), isolation or detect()
    cores = usable_cores()
    verdicts: dict[int, Verdict] = {}

    def settle(number: int, verdict: Verdict) -> None:
        verdicts[number] = verdict
        if on_final:
            on_final(number, verdict)

    # Bubblewrap and Landlock keep a program from this process's memory, which has the tests and nonces of all.
    with nullcontext() if isolation.bubblewrap or isolation.landlock else private_memory():
        again = []
        with ThreadPoolExecutor(max(1, min(workers or cores, cores))) as pool:
            futures = {pool.submit(run_alone, program, limits, isolation): n for n, program in enumerate(programs)}
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    if future.result().status in ("timeout", "refused"):
                        again.append(futures[future])
                    else:
                        settle(futures[future], future.result())
                    if on_verdict:
                        on_verdict(done)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # Who interrupts this does not wait for all the others.
        for number in sorted(again):
            settle(number, run_alone(programs[number], limits, isolation))
    return [verdicts[number] for number in range(len(programs))]
