"""Input and output of the sandbox: `Program`, `Limits`, `Verdict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from data_builders.errors import UserError

Status = Literal["passed", "failed", "timeout", "crashed", "refused"]


@dataclass(frozen=True)
class Program:
    """An untrusted program and its trusted tests.

    Attributes:
        code: the program; runs in the candidate process.
        tests: code that the judge runs. `names` in it are the program's: plain values are copied, functions and all
            other objects are proxies.
        setup: code that the judge runs first; may define other names for the tests.
        names: names that the tests take from the program; those that it does not bind stay undefined.
        modules: (name, import statement) pairs; the tests run the import if the program binds the name.
        expected: path of the results that the tests expect (`references`); "" = the tests contain them.
    """

    code: str
    tests: str
    setup: str = ""
    names: tuple[str, ...] = ()
    modules: tuple[tuple[str, str], ...] = ()
    expected: str = ""


@dataclass(frozen=True)
class Limits:
    """Resource limits of one program.

    Attributes:
        timeout: wall-clock seconds of program and tests; processor time is limited to a third more, plus 2 s.
        memory: bytes of address space.
        file_size: bytes per file, and of bubblewrap's private folder (four times as many without bubblewrap).
        entries: files and folders in the private folder.
        processes: threads (without seccomp also processes) of all programs, on top of all tasks of the machine.
    """

    timeout: float = 3.0
    memory: int = 2 * 2**30
    file_size: int = 16 * 2**20
    entries: int = 1024
    processes: int = 1024


@dataclass(frozen=True)
class Verdict:
    """The outcome of one program.

    Attributes:
        status: `passed`: the tests returned. `failed`: program or tests raised. `timeout`: not done in time, twice.
            `crashed`: its process, or the judge's, ended before the tests did. `refused`: it never ran.
        detail: one line, for people.
        seconds: wall-clock time, the start of the interpreter included.
    """

    status: Status
    detail: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Return whether the tests returned."""
        return self.status == "passed"

    def as_row(self) -> dict[str, Any]:
        """Return the fields for a sample's row."""
        return {"status": self.status, "detail": self.detail, "seconds": round(self.seconds, 3)}


def require_permission(allow_code_execution: bool, task: str) -> None:
    """Raise UserError unless the user has allowed running model-written programs."""
    if not allow_code_execution:
        raise UserError(
            f"{task} runs programs that a model wrote, in a sandbox that is no guarantee;"
            " add --allow-code-execution to allow it"
        )
