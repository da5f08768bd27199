"""The process that judges a program: it forks the program's process, runs the tests itself and writes the verdict.

The fork comes first. Only then does the judge read the tests and the nonce, so that no memory the program can see ever
held them. The program's values come as plain data that the judge builds itself, or as references (`Remote`) on which
nothing is computed that would tell the program what is expected of it.
"""

import builtins
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from evals.sandbox import confinement
from evals.sandbox.candidate import serve
from evals.sandbox.wire import decode, encode, receive, send


class CandidateError(Exception):
    """An exception of the program that is no built-in one."""


class CandidateGone(BaseException):
    """The program's process ended, or sent what is no message."""


class Channel:
    """The judge's side of the two pipes."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.remotes: dict[int, Remote] = {}
        self.is_broken = False

    def ask(self, *request: Any) -> Any:
        """Have the candidate do something and return what came of it; raises what it raised."""
        try:
            send(self.writing, [encode(part, _refer) for part in request])
            answer = receive(self.reading)
            if "many" in answer:
                number, length, kind = answer["many"]
                return Many(self, int(number), int(length), tuple if kind == "tuple" else list)
            if "error" not in answer:
                return decode(answer["value"], self._remote)
            kind, message = (str(part)[:200] for part in answer["error"])
        except (EOFError, OSError):
            self.is_broken = True
            raise CandidateGone("the program ended its process") from None
        except _Unsendable as error:
            raise CandidateError(str(error)) from None
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
            self.is_broken = True
            raise CandidateGone(f"no message: {error}") from None
        error_type = getattr(builtins, kind, None)
        if not (isinstance(error_type, type) and issubclass(error_type, Exception)) or kind.startswith("Unicode"):
            raise CandidateError(f"{kind}: {message}")
        raise error_type(message)

    def _remote(self, number: int) -> "Remote":
        if number not in self.remotes:
            self.remotes[number] = Remote(self, number)
        return self.remotes[number]


class Remote:
    """An object of the program that is no plain value. It equals itself and nothing else."""

    def __init__(self, channel: Channel, number: int) -> None:
        object.__setattr__(self, "_ask", channel.ask)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it in the program's process."""
        return self._ask("call", self, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("getitem", self, key)

    def __iter__(self) -> Any:
        iterator = self._ask("iter", self)
        return iterator if isinstance(iterator, Remote) else iter(iterator)

    def __next__(self) -> Any:
        return self._ask("next", self)

    def __len__(self) -> int:
        length = self._ask("len", self)
        return length if type(length) is int else 0

    def __bool__(self) -> bool:
        return self._ask("bool", self) is True

    def __str__(self) -> str:
        return str(self._ask("str", self))

    def __repr__(self) -> str:
        return str(self._ask("repr", self))


class Many(Remote):
    """A list or tuple of the program with so many items that they are fetched in pieces, and not all kept."""

    _PIECE = 4096

    def __init__(self, channel: Channel, number: int, length: int, kind: type) -> None:
        super().__init__(channel, number)
        object.__setattr__(self, "_length", length)
        object.__setattr__(self, "_kind", kind)

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return self._length > 0

    def __iter__(self) -> Any:
        for start in range(0, self._length, self._PIECE):
            yield from self._ask("piece", self, start, start + self._PIECE)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, self._kind) or len(other) != self._length:
            return False
        pieces = range(0, self._length, self._PIECE)
        return all(
            self._ask("piece", self, start, start + self._PIECE) == list(other[start : start + self._PIECE])
            for start in pieces
        )

    __hash__ = None  # type: ignore[assignment]

    def fetch(self) -> Any:
        """Return all of it, as the plain list or tuple that it is."""
        return self._kind(self)


class _Clock:
    """Ends what takes too long; the time in which the program was ready and the machine too busy does not count.

    It is credited up to three times the limit, so that a verdict does not depend on what else the machine does.
    """

    def __init__(self, pid: int, seconds: float, end: Callable[[], NoReturn]) -> None:
        self.pid, self.seconds, self.end = pid, seconds, end
        self.credited = 0.0
        signal.signal(signal.SIGALRM, self._on_alarm)

    def start(self) -> None:
        self.before = self._waited()
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, *_: Any) -> None:
        credit = min(self._waited() - self.before, 3 * self.seconds) - self.credited
        if credit < 0.01:
            self.end()
        self.credited += credit
        signal.setitimer(signal.ITIMER_REAL, credit)

    def _waited(self) -> float:
        """Return the seconds the program and the judge have waited for a processor (0 where nobody counts them)."""
        try:
            lines = [open(f"/proc/{pid}/schedstat").read() for pid in (self.pid, "self")]
        except OSError:
            return 0.0
        return sum(int(line.split()[1]) for line in lines) / 1e9


class _Unsendable(Exception):
    pass


def _refer(value: Any) -> dict[str, Any]:
    if isinstance(value, Remote):
        return {"ref": object.__getattribute__(value, "_number")}
    raise _Unsendable(f"a test gives the program a {type(value).__name__}, which cannot be sent")


def main() -> None:
    """Judge one program; what the supervisor gives is in `sys.argv` (how) and on stdin (what)."""
    settings = json.loads(sys.argv[1])
    try:
        confinement.die_with_parent()
        confinement.limit_resources(**settings["limits"])
        to_candidate, to_judge = os.pipe(), os.pipe()
        pid = os.fork()
    except OSError as error:
        _answer(1, {"status": "refused", "detail": str(error)})
    if pid == 0:
        _become_candidate(to_candidate[0], to_judge[1], settings)
    os.close(to_candidate[0])
    os.close(to_judge[1])
    job = json.loads(sys.stdin.buffer.read())
    verdicts = os.dup(1)
    _silence()

    def finish(status: str, detail: str) -> NoReturn:
        os.kill(pid, signal.SIGKILL)
        _answer(verdicts, {"nonce": job["nonce"], "status": status, "detail": detail})

    sys.path += settings["site"]
    clock = _Clock(pid, settings["timeout"], lambda: finish("timeout", f"more than {settings['timeout']:g} s"))
    channel = Channel(to_judge[0], to_candidate[1])
    try:
        ready = receive(channel.reading)
    except (EOFError, OSError, ValueError):
        ready = "its process ended at once"
    if ready != "ready":
        finish("refused", str(ready))
    clock.start()
    status, detail = _judge(job, channel)
    clock.stop()
    finish(status, detail)


def _become_candidate(reading: int, writing: int, settings: dict[str, Any]) -> NoReturn:
    """Keep two pipes and nothing else, give up what can be given up, and serve."""
    try:
        _silence()
        for descriptor in range(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
            if descriptor not in (reading, writing):
                _close(descriptor)
        sys.argv = [""]
        sys.path += settings["site"]
        try:
            confinement.die_with_parent()
            confinement.drop_privileges()
            if settings["landlock"]:
                confinement.restrict_files(settings["readable"])
            if settings["seccomp"]:
                confinement.restrict_system_calls(settings["writable"])
        except OSError as error:
            send(writing, f"cannot be confined: {error}")
            os._exit(1)
        send(writing, "ready")
        serve(reading, writing)
    finally:
        os._exit(0)


def _judge(job: dict[str, Any], channel: Channel) -> tuple[str, str]:
    """Run program and tests and return status and detail."""
    namespace: dict[str, Any] = {}
    stage = "program"
    try:
        exec(job["setup"], namespace)
        channel.ask("run", job["code"])
        stage = "tests"
        for name, statement in job["modules"]:
            if channel.ask("bound", name) is True:
                exec(statement, namespace)
        for name in job["names"]:
            namespace.pop(name, None)
            if channel.ask("bound", name) is True:
                namespace[name] = channel.ask("take", name)
        exec(job["tests"], namespace)
    except CandidateGone as error:
        return "crashed", str(error)
    except BaseException as error:
        return "failed", f"{stage}: {type(error).__name__}: {error}".rstrip(": ")[:300]
    return ("crashed", "the program ended its process") if channel.is_broken else ("passed", "")


def _answer(descriptor: int, verdict: dict[str, Any]) -> NoReturn:
    os.write(descriptor, json.dumps(verdict).encode())
    os._exit(0)


def _silence() -> None:
    """Point standard input, output and error at nothing."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass
