"""Judge many programs in parallel and store each verdict at once, so that interrupted scoring can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_builders.progress import Progress
from data_builders.row_files import Fields, append_jsonl, read_jsonl
from data_builders.workers import usable_cores
from evals.sandbox.confinement import private_memory
from evals.sandbox.detection import detect
from evals.sandbox.isolation import Isolation
from evals.sandbox.program import Limits, Program, Verdict
from evals.sandbox.supervisor import run_alone

_FIELDS: Fields = {"program": str, "status": str, "detail": str, "seconds": (int, float)}


class Journal:
    """Verdicts of programs, keyed by a hash of everything that a verdict depends on.

    Args:
        path: JSONL file, one verdict per line; None keeps verdicts in memory only.
        progress: receives the number of programs judged.
    """

    def __init__(self, path: Path | None = None, progress: Progress = Progress()) -> None:  # noqa: B008
        self.path, self.progress = path, progress
        self._known: dict[str, Verdict] = {}
        for row in [] if path is None else read_jsonl(path, fields=_FIELDS):
            self._known[row["program"]] = Verdict(row["status"], row["detail"], row["seconds"])

    def judge(self, programs: Sequence[Program], limits: Limits, isolation: Isolation) -> list[Verdict]:
        """Return the verdicts of programs; run each new one once, even if it occurs several times."""
        keys = _keys(programs, limits, isolation)
        new = {key: program for key, program in zip(keys, programs, strict=True) if key not in self._known}
        names = list(new)
        known = len(set(keys)) - len(names)

        def keep(number: int, verdict: Verdict) -> None:
            if verdict.status == "refused":  # not stored: it never ran, and may run next time
                refused[names[number]] = verdict
                return
            self._known[names[number]] = verdict
            if self.path is not None:
                append_jsonl(self.path, [{"program": names[number], **asdict(verdict)}], durable=True)

        def tell(done: int) -> None:
            self.progress.step("scoring", known + done, known + len(names))

        refused: dict[str, Verdict] = {}
        tell(0)
        run_programs([*new.values()], limits, isolation, on_verdict=tell, on_final=keep)
        return [refused.get(key) or self._known[key] for key in keys]


def _keys(programs: Sequence[Program], limits: Limits, isolation: Isolation) -> list[str]:
    """Return the hash of each program; the tests, which may be long, are hashed once per problem."""
    hashes: dict[Any, Any] = {}
    keys = []
    for program in programs:
        shared = id(program.tests), id(program.setup), program.names, program.modules, program.expected
        if shared not in hashes:
            facts = [program.tests, program.setup, *shared[2:], asdict(limits), isolation.name]
            hashes[shared] = hashlib.sha256(json.dumps(facts).encode())
        each = hashes[shared].copy()
        each.update(program.code.encode("utf-8", "surrogatepass"))
        keys.append(each.hexdigest())
    return keys


def run_programs(
    programs: Sequence[Program],
    limits: Limits | None = None,
    isolation: Isolation | None = None,
    workers: int | None = None,
    on_verdict: Callable[[int], None] | None = None,
    on_final: Callable[[int, Verdict], None] | None = None,
) -> list[Verdict]:
    """Judge programs in parallel; retry those that timed out or did not start, one by one, at the end.

    Args:
        isolation: default: the strongest that works here.
        workers: programs at a time; default and maximum: one per core that this process may use.
        on_verdict: called with the number of programs judged so far.
        on_final: called with the index of a program and its final verdict, as soon as it is known.
    """
    limits, isolation = limits or Limits(), isolation or detect()
    cores = usable_cores()
    verdicts: dict[int, Verdict] = {}

    def settle(number: int, verdict: Verdict) -> None:
        verdicts[number] = verdict
        if on_final:
            on_final(number, verdict)

    # Without bubblewrap or Landlock, programs could read all tests and nonces in this process's memory.
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
                pool.shutdown(wait=False, cancel_futures=True)  # an interrupt need not wait for all others
        for number in sorted(again):
            settle(number, run_alone(programs[number], limits, isolation))
    return [verdicts[number] for number in range(len(programs))]
