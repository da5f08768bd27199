"""Start judges, wait for their verdicts up to a time limit, and clean up after them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict

from evals.sandbox.isolation import ENVIRONMENT, Isolation
from evals.sandbox.program import Limits, Program, Verdict
from evals.sandbox.scratch import is_too_full, scratch_folder

STARTING_SECONDS = 30.0
"""Time that an interpreter may take to start on a busy machine; a program's own time begins afterwards."""
_WATCHING_SECONDS = 0.05


def run_alone(program: Program, limits: Limits, isolation: Isolation) -> Verdict:
    """Judge one program."""
    began = time.monotonic()
    nonce = secrets.token_hex(16)
    expected = os.open(program.expected, os.O_RDONLY) if program.expected else None
    job = json.dumps({**asdict(program), "nonce": nonce, "expected": expected}).encode()
    try:
        output, errors = ask(job, limits, isolation, "judge", () if expected is None else (expected,))
    except subprocess.TimeoutExpired:
        return Verdict("timeout", "killed by the supervisor", time.monotonic() - began)
    except OSError as trouble:
        return Verdict("crashed", str(trouble), time.monotonic() - began)
    finally:
        if expected is not None:
            os.close(expected)
    return _verdict(output, errors, nonce, time.monotonic() - began)


def ask(
    job: bytes, limits: Limits, isolation: Isolation, main: str, descriptors: Sequence[int] = ()
) -> tuple[bytes, bytes]:
    """Run a job in a fresh process and return its stdout and stderr.

    Args:
        main: the module of this package to run (`judge`, `expected`).
        descriptors: file descriptors that it inherits besides the standard ones.

    Raises:
        subprocess.TimeoutExpired: it took too long.
        OSError: the program wrote too much.
    """
    with nullcontext(None) if isolation.bubblewrap else scratch_folder() as folder:
        process = subprocess.Popen(
            isolation.command(limits, folder, main),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder or "/",
            env=ENVIRONMENT,
            start_new_session=True,
            pass_fds=descriptors,
        )
        try:
            return _communicate(process, job, limits, folder)
        finally:
            _kill(process)


def _communicate(
    process: subprocess.Popen[bytes], job: bytes, limits: Limits, folder: str | None
) -> tuple[bytes, bytes]:
    """Send a job and return stdout and stderr; meanwhile, watch the folder in which the program may write.

    Raises:
        subprocess.TimeoutExpired: it took too long.
        OSError: the folder is too full.
    """
    ends = time.monotonic() + STARTING_SECONDS + 4 * limits.timeout
    given: bytes | None = job
    while True:
        left = ends - time.monotonic()
        try:
            return process.communicate(given, min(left, _WATCHING_SECONDS) if folder else left)
        except subprocess.TimeoutExpired:
            if left <= _WATCHING_SECONDS or not folder:
                raise
        if is_too_full(folder, limits):
            raise OSError("killed by the supervisor: too many files or bytes in its folder")
        given = None


def _verdict(output: bytes, errors: bytes, nonce: str, seconds: float) -> Verdict:
    """Return the judge's last verdict, or `refused` if it wrote none with the nonce."""
    try:
        answer = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        lines = errors.decode(errors="replace").strip().splitlines()
        return Verdict("refused", lines[-1][:300] if lines else "the judge gave no verdict", seconds)
    if answer.get("nonce") != nonce:
        return Verdict("refused", str(answer.get("detail", "")), seconds)
    return Verdict(answer["status"], " ".join(answer["detail"].split()), seconds)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a judge and its process group, close its pipes and reap it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
    process.wait()
