"""Runs programs that a model wrote and says whether they pass their tests.

Each program gets two fresh processes. The *candidate* runs the program's text and holds its objects. The *judge* holds
the tests and a nonce; it calls the program's functions through pipes and computes the outcome from plain values that it
builds itself. It writes its verdict with the nonce to a pipe that the candidate never had, after the tests returned. So
a program cannot pass by ending its process, walking frames, searching memory, patching builtins or redefining `__eq__`:
it would have to answer every call rightly. Both run under resource limits, in a session of their own, with no
environment, and under the strongest isolation that works here (`detection.detect`).

What remains possible under which isolation, and what differs from running both in one process, is in
docs/code-execution.md.
"""

from evals.sandbox.detection import detect, find_isolation
from evals.sandbox.isolation import Isolation
from evals.sandbox.journal import Journal, run_programs
from evals.sandbox.program import Limits, Program, Status, Verdict, require_permission
from evals.sandbox.references import Reference, expected_results
from evals.sandbox.supervisor import run_alone

__all__ = [
    "Isolation",
    "Journal",
    "Limits",
    "Program",
    "Reference",
    "Status",
    "Verdict",
    "detect",
    "expected_results",
    "find_isolation",
    "require_permission",
    "run_alone",
    "run_programs",
]
