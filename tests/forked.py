"""Stages and scripts as forks of a process that has imported what they need: the same code in processes, sooner.

What the start itself does is left to the tests that run `calmctl` as a command, and to `make smoke`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, TextIO

import pytest

from calmctl.processes import child
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
        self,
        command: Sequence[str],
        stdout: TextIO,
        env: dict[str, str],
        stdin: int,
        stderr: int | TextIO,
        **session: bool,
    ) -> None:
        assert list(command[:4]) == [sys.executable, "-P", "-m", "calmctl"] and session == {"start_new_session": True}
        assert stdin == subprocess.DEVNULL
        errors = stdout if isinstance(stderr, int) else stderr
        context = multiprocessing.get_context("forkserver")
        streams = (DupFd(stdout.fileno()), DupFd(errors.fileno()))
        self._process = context.Process(target=_run, args=(command[4:], os.getcwd(), env, *streams))
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


def run_script(script: Path, *arguments: object) -> str:
    """Run a script with arguments in a fork and return what it prints on stdout; it must succeed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with tempfile.TemporaryFile("w+") as output:
        process = context.Process(target=_run_script, args=(str(script), arguments, DupFd(output.fileno())))
        process.start()
        process.join()
        output.seek(0)
        assert process.exitcode == 0
        return output.read()


def _run_script(script: str, arguments: Sequence[object], output: Any) -> None:
    _write_into(output, 1)
    sys.argv = [script, *map(str, arguments)]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


def _write_into(output: Any, *descriptors: int) -> None:
    """Make descriptors copies of a received one."""
    received = output.detach()
    for number in descriptors:
        os.dup2(received, number)
    os.close(received)


def _run(arguments: Sequence[str], folder: str, env: dict[str, str], output: Any, errors: Any) -> None:
    from calmctl.cli.main import script

    os.setsid()
    _write_into(output, 1)
    _write_into(errors, 2)
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
        patch.setattr(child, "subprocess", Forking)
        yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
