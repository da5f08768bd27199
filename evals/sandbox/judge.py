"""The process that judges a program: it forks the program's process, runs the tests itself and writes the verdict.

The fork comes first. Only then does the judge read the tests and the nonce, so that no memory the program can see ever
held them. The program's values come as plain data that the judge builds itself, or as references (`Remote`) of which
nothing is believed that the program says once it has seen what is expected of it (`evidence`).
"""

import json
import os
import sys
from typing import Any, NoReturn

from evals.sandbox import confinement, expected
from evals.sandbox.candidate import serve
from evals.sandbox.clock import Clock
from evals.sandbox.pipes import dump, receive, send
from evals.sandbox.tests import Tests

_MANY_DESCRIPTORS = 2**20  # More than the limit of this process, which may have been given one above it.


def main() -> None:
    """Judge one program; what the supervisor gives is in `sys.argv` (how) and on stdin (what)."""
    settings = json.loads(sys.argv[1])
    try:
        confinement.prepare(settings)
        to_candidate, to_judge = os.pipe(), os.pipe()
        pid = os.fork()
    except OSError as error:
        _answer(1, {"status": "refused", "detail": str(error)})
        os._exit(0)
    if pid == 0:
        _become_candidate(to_candidate[0], to_judge[1], settings)
    os.close(to_candidate[0])
    os.close(to_judge[1])
    job = json.loads(sys.stdin.buffer.read())
    verdicts = os.dup(1)
    _silence()

    def finish(status: str, detail: str) -> NoReturn:
        if not settings["seccomp"]:  # A confined process may send no signal; the kernel ends the program with it.
            confinement.end_descendants(pid)
        _answer(verdicts, {"nonce": job["nonce"], "status": status, "detail": detail})
        os._exit(0)

    sys.path += settings["site"]
    expected.descriptor = job["expected"]
    clock = Clock(pid, lambda too_much: finish("timeout", too_much))
    try:
        ready = receive(to_judge[0])
    except (EOFError, OSError, ValueError):
        ready = "its process ended at once"
    if ready != "ready":
        finish("refused", str(ready))
    try:
        confinement.confine(settings)  # Tests are not the program's, but nobody may have read them either.
    except OSError as error:
        finish("refused", f"the tests cannot be confined: {error}")
    # What stands if the program, or what it has the tests compute, is the end of this process.
    _answer(verdicts, {"nonce": job["nonce"], "status": "crashed", "detail": "no verdict: the judge was ended"})
    with clock.within(settings["timeout"]):
        status, detail = Tests(job, to_judge[0], to_candidate[1]).run()
    finish(status, detail)


def _become_candidate(reading: int, writing: int, settings: dict[str, Any]) -> NoReturn:
    """Keep two pipes and nothing else, give up what can be given up, and serve."""
    try:
        _silence()
        first, second = sorted((reading, writing))
        for low, high in ((3, first), (first + 1, second), (second + 1, _MANY_DESCRIPTORS)):
            os.closerange(low, high)
        sys.argv = [""]
        sys.path += settings["site"]
        try:
            confinement.confine(settings)
        except OSError as error:
            send(writing, dump(f"cannot be confined: {error}"))
            os._exit(1)
        send(writing, dump("ready"))
        serve(reading, writing)
    finally:
        os._exit(0)


def _answer(descriptor: int, verdict: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(verdict).encode() + b"\n")


def _silence() -> None:
    """Point standard input, output and error at nothing."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
