"""Stages as forks of a process that has imported what they need: the same code in processes of their own, sooner.

What the start itself does is left to the tests that run `calmctl` as a command, and to `make smoke`.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from typing import Any, TextIO

import pytest

from calmctl.experiments import stages
from calmctl.processes.parent import PARENT_VARIABLE

# What the commands of stages import once they run.
_IMPORTED = [
    "calmctl.cli.main", "calmctl.baselines.training", "calmctl.evaluation.evaluating", "calmctl.training.session",
    "calmctl.training.compositions", "data_builders.kv.build", "transformers.models.auto.modeling_auto", "pandas",
    "pytest", "tests.frozen",
]  # fmt: skip


class Fork:
    """What a test needs of `subprocess.Popen`, for `python -P -m calmctl ARGUMENTS`."""

    def __init__(
        self, command: Sequence[str], stdout: TextIO, env: dict[str, str], stdin: int, stderr: int, **session: bool
    ) -> None:
        assert list(command[:4]) == [sys.executable, "-P", "-m", "calmctl"] and session == {"start_new_session": True}
        assert (stdin, stderr) == (subprocess.DEVNULL, subprocess.STDOUT)
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run, args=(command[4:], os.getcwd(), env, DupFd(stdout.fileno())))
        self._process.start()

    def poll(self) -> int | None:
        """Return the exit code, once there is one."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait for the end."""
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process.pid and self._process.exitcode is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()


def _run(arguments: Sequence[str], folder: str, env: dict[str, str], output: Any) -> None:
    from calmctl.cli.main import script

    os.setsid()
    descriptor = output.detach()
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ |= env | {PARENT_VARIABLE: str(os.getppid())}
    sys.argv = ["calmctl", *arguments]
    sys.exit(script())


@pytest.fixture(scope="module")
def forked_stages() -> Iterator[None]:
    """Run stages as forks."""

    class Forking:
        Popen, DEVNULL, STDOUT = Fork, subprocess.DEVNULL, subprocess.STDOUT

    multiprocessing.get_context("forkserver").set_forkserver_preload(_IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "subprocess", Forking)
        yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
