"""The protocol between judge and candidate: each side sends requests, and serves the other's while it waits."""

from collections.abc import Callable, Mapping
from typing import Any

from evals.sandbox import pipes
from evals.sandbox.held import Held
from evals.sandbox.remote import Mirrors
from evals.sandbox.wire import Codec

_ITERATING = ("__next__", "resume", "throw")


class Gone(BaseException):
    """The other process ended, or sent an invalid message."""


class Peer:
    """One side of two pipes: sends requests, and serves the other side's while it waits for an answer."""

    def __init__(
        self,
        reading: int,
        writing: int,
        is_judge: bool,
        operations: Mapping[str, Callable[..., Any]],
        own_ways: Callable[["Peer"], dict[str, Callable[..., Any]]] | None = None,
    ) -> None:
        self.reading, self.writing, self.is_judge = reading, writing, is_judge
        self.operations = operations
        self.is_broken = False
        self.prepare: Callable[[], None] | None = None
        self.depth = 0  # number of requests that wait for an answer
        self.codec = Codec(is_judge, Mirrors(self, own_ways(self) if own_ways else {}))
        self.held = Held(self.codec) if is_judge else None

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the other side perform an operation; return its result, or raise the exception that it raised."""
        if prepare := self.prepare:
            self.prepare = None  # `prepare` itself calls `ask`
            prepare()
            self.prepare = prepare
        self._send("ask", operation, list(arguments))
        self.depth += 1
        try:
            while (message := self._receive())[0] == "ask":
                self._answer(*message[1:])
        finally:
            self.depth -= 1
        try:
            if message[0] == "value":
                return self.codec.decode(message[1])
            error = self.codec.decode(message[1])
            if isinstance(error, StopIteration | StopAsyncIteration) and operation not in _ITERATING:
                error = RuntimeError(f"the program raised {type(error).__name__}")  # would end a loop of the tests
        except Exception as trouble:
            raise self._broken(trouble) from None
        if not isinstance(error, BaseException):
            raise self._broken("an error that is none")
        raise error

    def serve(self) -> None:
        """Serve the other side's requests until it is gone."""
        while True:
            try:
                _, *message = self._receive()
            except Gone:
                return
            self._answer(*message)

    def _answer(self, operation: str, arguments: Any) -> None:
        try:
            if self.is_judge and not (arguments and type(arguments[0]) is dict and arguments[0].keys() == {"yours"}):
                raise TypeError("only objects of the tests can be asked")
            self._send("value", self.operations[operation](*map(self.codec.decode, arguments)))
        except Gone:
            raise
        except BaseException as error:
            self._send_error(error)

    def _send_error(self, error: BaseException) -> None:
        try:
            self._send("raise", error.with_traceback(None))
        except BaseException:
            self._send("raise", RuntimeError(f"an error that cannot be sent: {type(error).__name__}"))

    def _send(self, kind: str, *content: Any) -> None:
        """Write a message, or nothing if a part of it cannot be encoded."""
        codec, mark = self.codec, self.codec.followed.last
        forgets = self.is_judge and self.depth == 0 and codec.followed.is_full()
        if forgets:
            if self.held is not None:
                self.held.settle()
            codec.followed.clear()
        changes = codec.encode_changes()
        try:
            if kind == "ask":
                written = [content[0], [codec.encode(each) for each in content[1]]]
            else:
                written = [codec.encode(each) for each in content]
            body = pipes.dump([codec.followed.is_on, forgets, changes, kind, *written])
        except BaseException:
            codec.followed.forget(mark, changes)
            raise
        try:
            pipes.send(self.writing, body)
        except OSError as error:
            raise self._broken(error) from None

    def _receive(self) -> Any:
        try:
            is_sharing, forgets, changes, *message = pipes.receive(self.reading)
            if forgets and not self.is_judge:
                self.codec.followed.clear()
            changed = self.codec.decode_changes(changes)
            if not self.is_judge:
                self.codec.followed.is_on = bool(is_sharing)
            for number, items in changed:
                if self.held is not None and number % 2 == 1:
                    self.held.hold(number, items)
                else:
                    self.codec.followed.fill(number, items)
            if message[0] not in ("ask", "value", "raise") or len(message) != (3 if message[0] == "ask" else 2):
                raise ValueError("it says nothing")
            return message
        except (EOFError, OSError):
            self.is_broken = True
            raise Gone("the program ended its process") from None
        except Exception as trouble:
            raise self._broken(trouble) from None

    def _broken(self, why: object) -> Gone:
        self.is_broken = True
        return Gone("the program ended its process" if isinstance(why, OSError) else f"no message: {why}")
