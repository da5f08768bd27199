"""Find the strongest isolation that works on this machine, by trying it, once per process."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from functools import cache

from evals.sandbox.isolation import Isolation
from evals.sandbox.program import Limits, Program
from evals.sandbox.supervisor import run_alone


@cache
def detect() -> Isolation:
    """Return the strongest isolation that works here."""
    return find_isolation()[0]


def find_isolation() -> tuple[Isolation, str]:
    """Return the strongest isolation that works here, and why a stronger one does not ("" if none is stronger)."""
    weaker = Isolation(seccomp=not _trouble(Isolation(seccomp=True)))
    if not _trouble(Isolation(seccomp=weaker.seccomp, landlock=True)):
        weaker = Isolation(seccomp=weaker.seccomp, landlock=True)
    if sys.platform != "linux":
        return weaker, "bubblewrap is for Linux only; use a Linux container"
    path = shutil.which("bwrap")
    if path is None:
        return weaker, "bubblewrap is not installed; apt-get install bubblewrap"
    strongest = Isolation(bubblewrap=path, seccomp=weaker.seccomp)
    for strong in (strongest, replace(strongest, own_user=False)):
        trouble = _trouble(strong)
        if not trouble:
            return strong, "" if strong.seccomp else "this kernel has no seccomp filters"
    return weaker, f"bubblewrap does not work here ({trouble}); allow unprivileged user namespaces"


def _trouble(isolation: Isolation) -> str:
    """Run a program that tries what the isolation must prevent; return what went wrong, or ""."""
    with tempfile.NamedTemporaryFile() as outside:
        attempts = [f"open({outside.name!r})"] if isolation.bubblewrap or isolation.landlock else []
        if isolation.bubblewrap or isolation.seccomp:
            attempts.append(f"open({outside.name + '.new'!r}, 'w')" if not isolation.bubblewrap else "open('/x', 'w')")
            attempts.append("__import__('socket').create_connection(('127.0.0.1', 9), 1)")
        if isolation.bubblewrap:
            attempts.append("open('/proc/sys/kernel/domainname', 'r+')")
        tries = "".join(f"try:\n    {attempt}\nexcept OSError:\n    failed += 1\n" for attempt in attempts)
        program = Program(
            f"failed = 0\n{tries}", f"assert failed == {len(attempts)}, 'it does not isolate'", names=("failed",)
        )
        verdict = run_alone(program, Limits(timeout=10.0), isolation)
    return "" if verdict.passed else verdict.detail or verdict.status
