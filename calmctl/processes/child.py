"""A `calmctl` command as a process of its own, which ends when this one does; and why it failed."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from calmctl.processes.parent import PARENT_VARIABLE

INTERRUPTED = 130


def start_command(
    command: Sequence[str],
    output: TextIO,
    errors: TextIO | None = None,
    threads: int = 0,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `calmctl` with some arguments; signals of the terminal do not reach it.

    Args:
        output: gets its stdout.
        errors: gets its stderr; None = `output` does.
        threads: CPU threads; 0 = as this process.
        environment: variables to set beside those of this process.
    """
    package_root = Path(__file__).parents[2]
    variables = os.environ | {
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(package_root), os.environ.get("PYTHONPATH")])),
        PARENT_VARIABLE: str(os.getpid()),
    }
    if threads:
        variables["OMP_NUM_THREADS"] = str(threads)
    # -P keeps the working directory off sys.path: a folder there may have the name of a package.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "calmctl", *command],
        stdout=output,
        stderr=subprocess.STDOUT if errors is None else errors,
        stdin=subprocess.DEVNULL,
        env=variables | dict(environment or {}),
        start_new_session=True,
    )


def why_it_failed(code: int, log: Path) -> str:
    """Return why a command ended with an exit code other than 0: the signal that killed it, or its last words."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}{' (perhaps out of memory)' if name == 'SIGKILL' else ''}"
    return last_words(log)


def last_words(log: Path) -> str:
    """Return the last line of a command's output, without `calmctl: error: `."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1].removeprefix("calmctl: ").removeprefix("error: ").removeprefix("failed: ")
