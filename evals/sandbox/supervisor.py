"""Starts judges, waits for their verdicts no longer than agreed, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict

from data_builders.workers import usable_cores
from evals.sandbox.confinement import private_memory
from evals.sandbox.isolation import Isolation, detect
from evals.sandbox.program import Limits, Program, Verdict

STARTING_SECONDS = 30.0
"""How long starting an interpreter may take on a busy machine; a program's own time begins afterwards."""


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


def run_alone(program: Program, limits: Limits, isolation: Isolation) -> Verdict:
    """Judge one program."""
    began = time.monotonic()
    nonce = secrets.token_hex(16)
    job = json.dumps({**asdict(program), "nonce": nonce}).encode()
    # A folder of its own where the program could write otherwise; bubblewrap has a private one inside.
    with nullcontext("/") if isolation.seccomp else tempfile.TemporaryDirectory(prefix="calmctl-") as folder:
        process = subprocess.Popen(
            isolation.command(limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(job, STARTING_SECONDS + 4 * limits.timeout)
        except subprocess.TimeoutExpired:
            return Verdict("timeout", "killed by the supervisor", time.monotonic() - began)
        finally:
            _kill(process)
    return _verdict(output, errors, nonce, time.monotonic() - began)


def _verdict(output: bytes, errors: bytes, nonce: str, seconds: float) -> Verdict:
    """Return what the judge said last."""
    try:
        answer = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        lines = errors.decode(errors="replace").strip().splitlines()
        return Verdict("refused", lines[-1][:300] if lines else "the judge gave no verdict", seconds)
    if answer.get("nonce") != nonce:
        return Verdict("refused", str(answer.get("detail", "")), seconds)
    return Verdict(answer["status"], " ".join(answer["detail"].split()), seconds)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a judge and everything in its session, and take the remains away."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
    process.wait()
