"""The judge process: forks the candidate, runs the tests itself and writes the verdict.

The judge forks before it reads the tests and the nonce, so no memory that the program can see ever held them. Values of
the program arrive as plain data from which the judge builds its own, or as proxies (`Remote`), which are not believed
about anything that the program computed after seeing a value of the tests (`evidence`).
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

_MANY_DESCRIPTORS = 2**20  # above this process's limit: it may have inherited a higher one


def main() -> None:
    """Judge one program; the settings are in `sys.argv`, program and tests on stdin."""
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
        if not settings["seccomp"]:  # it forbids signals; there the program ends with its parent
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
        confinement.confine(settings)  # nobody may have reviewed the tests either
    except OSError as error:
        finish("refused", f"the tests cannot be confined: {error}")
    # The verdict that stands if the program, or what it makes the tests compute, ends this process.
    _answer(verdicts, {"nonce": job["nonce"], "status": "crashed", "detail": "no verdict: the judge was ended"})
    with clock.within(settings["timeout"]):
        status, detail = Tests(job, to_judge[0], to_candidate[1]).run()
    finish(status, detail)


def _become_candidate(reading: int, writing: int, settings: dict[str, Any]) -> NoReturn:
    """Close everything but the two pipes, confine this process, and serve."""
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
    """Redirect stdin, stdout and stderr to the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
