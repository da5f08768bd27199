"""Verdicts, kept as they come: a file from which an interrupted scoring goes on, and what tells how far it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_builders.progress import Progress
from data_builders.rows import Fields, append_jsonl, read_jsonl
from evals.sandbox.isolation import Isolation
from evals.sandbox.pool import run_programs
from evals.sandbox.program import Limits, Program, Verdict

_FIELDS: Fields = {"program": str, "status": str, "detail": str, "seconds": (int, float)}


class Journal:
    """The verdicts of programs, by all that a verdict depends on.

    Args:
        path: a line a verdict; None keeps them in memory only.
        progress: is told how many programs are judged.
    """

    def __init__(self, path: Path | None = None, progress: Progress = Progress()) -> None:  # noqa: B008
        self.path, self.progress = path, progress
        self._known: dict[str, Verdict] = {}
        for row in [] if path is None else read_jsonl(path, fields=_FIELDS):
            self._known[row["program"]] = Verdict(row["status"], row["detail"], row["seconds"])

    def judge(self, programs: Sequence[Program], limits: Limits, isolation: Isolation) -> list[Verdict]:
        """Return the verdicts of programs; each that is new runs once, however often it is there."""
        keys = _keys(programs, limits, isolation)
        new = {key: program for key, program in zip(keys, programs, strict=True) if key not in self._known}
        names = list(new)
        known = len(set(keys)) - len(names)

        def keep(number: int, verdict: Verdict) -> None:
            if verdict.status == "refused":  # It never ran, and may run the next time.
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
    """Return what tells programs from each other; those of a problem share their tests, which may be long."""
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
