"""What goes into the sandbox and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from data_builders.errors import UserError

Status = Literal["passed", "failed", "timeout", "crashed", "refused"]


@dataclass(frozen=True)
class Program:
    """A program that nobody has read, and tests that are trusted.

    Attributes:
        code: runs in a process of its own.
        tests: run by the judge, where `names` are what the program bound to them: plain values are copied, functions
            and all else are references.
        setup: runs by the judge before, and may define what the tests need besides.
        names: what the tests use of the program. A name the program does not bind stays undefined.
        modules: pairs of a name and the import that binds it, which the tests use if the program binds that name.
        expected: the file with the results that the tests expect (`references`), "" = they have them.
    """

    code: str
    tests: str
    setup: str = ""
    names: tuple[str, ...] = ()
    modules: tuple[tuple[str, str], ...] = ()
    expected: str = ""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        timeout: wall-clock seconds of program and tests; a third more than that of processor time also ends it.
        memory: bytes of address space.
        file_size: bytes of a file, and of its private folder for temporary files.
        entries: files and folders in that folder.
        processes: threads of all programs and, without seccomp, processes, besides what runs on the machine.
    """

    timeout: float = 3.0
    memory: int = 2 * 2**30
    file_size: int = 16 * 2**20
    entries: int = 1024
    processes: int = 1024


@dataclass(frozen=True)
class Verdict:
    """How a program did.

    Attributes:
        status: `passed`: the tests returned. `failed`: program or tests raised. `timeout`: not done in time, twice.
            `crashed`: its process, or the judge's, was gone before the tests were done. `refused`: it never ran.
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
        """Return what a sample's row tells."""
        return {"status": self.status, "detail": self.detail, "seconds": round(self.seconds, 3)}


def require_permission(allow_code_execution: bool, task: str) -> None:
    """Raise UserError unless the user has allowed to run what models write."""
    if not allow_code_execution:
        raise UserError(
            f"{task} runs programs that a model wrote, in a sandbox that is no guarantee;"
            " add --allow-code-execution to allow it"
        )
