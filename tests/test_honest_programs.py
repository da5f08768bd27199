"""Honest programs get the verdict of the plain reference harness: everything executed in one namespace."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from evals.sandbox import Limits, Program, find_isolation, run_alone
from tests.programs.honest import programs

HARNESS = "import sys\nexec(sys.stdin.read(), {})\n"
PROGRAMS = programs()
DIFFERENT = {"library_30": "the generator of random numbers is not shared by the program and its tests"}
"""Programs with another verdict, and why; this may only become smaller."""


def passes_in_one_namespace(code: str, tests: str) -> bool:
    """Return whether a program passes its tests in the plain reference harness."""
    command = [sys.executable, "-c", HARNESS]
    return not subprocess.run(command, input=f"{code}\n{tests}", capture_output=True, text=True).returncode


def passes_in_the_sandbox(code: str, tests: str) -> bool:
    """Return whether a program passes its tests in the sandbox, in the isolation that there is."""
    names = tuple({"f", *re.findall(r"^(?:async )?(?:def|class) (\w+)", code, re.M)})
    return run_alone(Program(code, tests, names=names), Limits(10.0), find_isolation()[0]).passed


def different(names: list[str]) -> set[str]:
    """Return the programs on which the sandbox and the reference harness do not agree."""
    with ThreadPoolExecutor(2) as pool:
        plain = list(pool.map(lambda name: passes_in_one_namespace(*PROGRAMS[name]), names))
        ours = list(pool.map(lambda name: passes_in_the_sandbox(*PROGRAMS[name]), names))
    return {name for name, first, second in zip(names, plain, ours, strict=True) if first != second}


def test_a_sample_of_honest_programs_has_the_verdict_of_the_reference_harness() -> None:
    assert different([name for name in list(PROGRAMS)[::20] if name not in DIFFERENT]) == set()


@pytest.mark.slow
def test_every_honest_program_has_the_verdict_of_the_reference_harness() -> None:
    assert different(list(PROGRAMS)) == DIFFERENT.keys()
