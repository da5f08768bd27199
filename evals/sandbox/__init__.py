"""Run programs that a model wrote and decide whether they pass their tests.

Each program gets two fresh processes. The *candidate* runs the program's code and holds its objects. The *judge* holds
the tests and a nonce; it calls the program's functions through pipes and computes the outcome from plain values that it
builds itself. After the tests returned, it writes verdict and nonce to a pipe that the candidate never had. So a
program cannot pass by ending its process, walking frames, searching memory, patching builtins or redefining `__eq__`:
it has to answer every call correctly. Both processes run under resource limits, in a session of their own, without
environment variables, and under the strongest isolation that works here (`detection.detect`).

docs/code-execution.md lists what each isolation leaves possible, and what differs from running program and tests in one
process.
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
