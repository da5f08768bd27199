"""The judge's view of the program: its objects as plain values that are built here, or as references to them."""

import builtins
from typing import Any

from evals.sandbox.wire import decode, encode, receive, send


class CandidateExit(BaseException):
    """The program raised what is no `Exception`: `SystemExit`, for one, which tests that expect an error miss."""


class Unsendable(Exception):
    """A test gives the program something that has no plain value."""


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
            names, message = answer["error"]
            error = _exception([str(name) for name in names], str(message)[:200], is_iterator=request[0] == "next")
        except (EOFError, OSError):
            self.is_broken = True
            raise CandidateGone("the program ended its process") from None
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as trouble:
            self.is_broken = True
            raise CandidateGone(f"no message: {trouble}") from None
        raise error

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

    def __getitem__(self, key: Any) -> Any:
        return self.fetch()[key] if isinstance(key, slice) else super().__getitem__(key)

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


def _exception(names: list[str], message: str, is_iterator: bool) -> BaseException:
    """Return an exception of the nearest built-in type that can be made of a message alone.

    Only an iterator may say that it is at its end: `StopIteration` of a function would end a loop of the tests early.
    """
    for kind in (vars(builtins).get(name) for name in names):
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            continue
        if issubclass(kind, StopIteration | StopAsyncIteration) and not is_iterator:
            return RuntimeError(f"the program raised {kind.__name__}")
        try:
            return kind(message)
        except TypeError:  # as UnicodeDecodeError, which wants more; its bases do not
            pass
    return CandidateExit(" ".join([*names[:1], message]).strip())


def _refer(value: Any) -> dict[str, Any]:
    if isinstance(value, Remote):
        return {"ref": object.__getattribute__(value, "_number")}
    raise Unsendable(f"a test gives the program a {type(value).__name__}, which cannot be sent")
