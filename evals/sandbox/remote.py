"""Proxies on one side of the pipes for objects of the other side.

A proxy has the special methods that the class of its object defines; the other side performs each operation.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, Protocol

from evals.sandbox import specials
from evals.sandbox.values import IMMUTABLE
from evals.sandbox.wire import Codec


class Asking(Protocol):
    """What proxies need of a `Peer`."""

    is_judge: bool
    codec: Codec

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the other side perform an operation and return its result."""


class Module:
    """The name of a module of the program; the tests import the module themselves if the name is the expected one."""

    def __init__(self, name: str) -> None:
        self.__name__ = name


class _RemoteClass(type):
    """Metaclass of proxy classes; a proxy class is itself the proxy for a class of the other side."""

    __calmctl__: Asking

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        return cls.__calmctl__.ask("__call__", cls, arguments, tuple(keywords.items()))

    def __getattr__(cls, name: str) -> Any:
        if name == "__abstractmethods__":
            raise AttributeError(name)
        return cls.__calmctl__.ask("getattr", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        cls.__calmctl__.ask("setattr", cls, name, value)

    def __iter__(cls) -> Any:
        return cls.__calmctl__.ask("__iter__", cls)

    def __len__(cls) -> int:
        return int(cls.__calmctl__.ask("__len__", cls))

    def __bool__(cls) -> bool:
        return True

    def __getitem__(cls, key: Any) -> Any:
        return cls.__calmctl__.ask("__getitem__", cls, key)


class Remote:
    """A proxy for an object of the other side."""

    def __getattr__(self, name: str) -> Any:
        return type(self).__calmctl__.ask("getattr", self, name)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            object.__setattr__(self, name, value)
        else:
            type(self).__calmctl__.ask("setattr", self, name, value)  # type: ignore[attr-defined]

    def __delattr__(self, name: str) -> None:
        type(self).__calmctl__.ask("delattr", self, name)  # type: ignore[attr-defined]

    def __copy__(self) -> Any:
        return type(self).__calmctl__.ask("__copy__", self)  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self).__calmctl__.ask("__deepcopy__", self)  # type: ignore[attr-defined]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an object of the other process cannot be pickled")


def copies_only(function: Any) -> None:
    """From now on, send plain copies to the side that holds a function: its changes to them are not sent back."""
    if isinstance(function, Remote):
        type(function).__calmctl__.codec.followed.is_on = False  # type: ignore[attr-defined]


class Mirrors:
    """Makes proxies."""

    def __init__(self, peer: Asking, own_ways: dict[str, Callable[..., Any]]) -> None:
        self.peer = peer
        self.ways = {name: _done_there(peer, name) for name in specials.DEFINED} | {
            "__call__": lambda self, *arguments, **keywords: peer.ask(
                "__call__", self, arguments, tuple(keywords.items())
            )
        }
        for name in specials.ARITHMETIC:
            self.ways[f"__r{name[2:]}"] = lambda self, other, name=name: peer.ask(name, other, self)
        self.ways |= own_ways
        self.shared_parts = {name: _attribute(peer, name) for name in ("__dict__", "__doc__")}

    def of_class(self, name: str, kinds: list[Any], operations: list[str], known_name: str | None = None) -> Any:
        """Return a proxy class for a class of the other side.

        Args:
            kinds: all its base classes (the MRO), the nearest first.
            operations: names of the special methods that it defines.
            known_name: `module:name`, if the class can be imported.
        """
        if not all(isinstance(kind, type) for kind in kinds):
            raise ValueError("a class is derived from what is none")
        remote = [kind for kind in kinds if isinstance(kind, _RemoteClass)]
        known = [kind for kind in kinds if not isinstance(kind, _RemoteClass)]
        is_decisive = specials.are_decisive(operations)
        real = next((k for k in known if issubclass(k, BaseException) or k in IMMUTABLE and not is_decisive), None)
        namespace: dict[str, Any] = {each: self.ways[each] for each in operations if each in self.ways}
        namespace |= self.shared_parts | {"__calmctl__": self.peer}
        if shown := _shown(name, known if real is None else [], known_name):
            # Makes `isinstance` true for this class, though the proxy is not derived from it.
            namespace["__class__"] = property(lambda self: shown)
        bases = (*remote, Remote) if real is None else (*remote, Remote, real)
        return _RemoteClass(name, bases, namespace)

    def of_object(self, kind: Any, plain: tuple[Any] | None) -> Any:
        """Return a proxy for an object; `plain` has its value if its class is derived from a built-in type."""
        if not isinstance(kind, _RemoteClass):
            kind = self._of_known(kind)
        if plain is None:
            return object.__new__(kind)
        base = next(base for base in IMMUTABLE if base in kind.__mro__)
        if type(plain[0]) is not base:
            raise ValueError(f"a {base.__name__} that is none")
        return base.__new__(kind, plain[0])

    @functools.cache  # noqa: B019 - there is one of these in a process
    def _of_known(self, kind: type) -> Any:
        return self.of_class(kind.__name__, [kind], specials.of_class(kind, leaving_out=()))

    def of_error(self, kind: Any, arguments: Any, fields: Any) -> BaseException:
        """Rebuild an exception from its class, arguments and attributes."""
        if not (isinstance(kind, type) and issubclass(kind, BaseException) and type(arguments) is tuple):
            raise ValueError("an error that is none")
        error = kind.__new__(kind, *arguments)
        real = next(each for each in kind.__mro__ if not isinstance(each, _RemoteClass) and each is not Remote)
        try:
            real.__init__(error, *arguments)  # type: ignore[misc]
        except Exception:
            pass  # its `__init__` takes other arguments; their effects are in `fields`
        BaseException.__dict__["args"].__set__(error, arguments)
        for name, value in fields.items():
            if not name.startswith("__"):
                object.__setattr__(error, name, value)
        return error

    def of_generator(self, number: int) -> Any:
        """Return a generator that drives generator `number` of the other side."""
        peer = self.peer

        def generator() -> Any:
            operation, argument = "resume", None
            while True:
                try:
                    value = peer.ask(operation, peer.codec.others[number], argument)
                except StopIteration as stop:
                    return stop.value
                try:
                    operation, argument = "resume", (yield value)
                except GeneratorExit:
                    peer.ask("close", peer.codec.others[number])
                    raise
                except BaseException as error:
                    operation, argument = "throw", error

        return generator()

    def of_coroutine(self, number: int) -> Any:
        """Return a coroutine that runs coroutine `number` of the other side to its end, without suspending."""

        async def coroutine() -> Any:
            return self.peer.ask("finish", self.peer.codec.others[number])

        return coroutine()

    def of_module(self, name: str) -> Any:
        """Return the module to the program, but only its name to the judge."""
        return Module(str(name)) if self.peer.is_judge else importlib.import_module(name)


def _done_there(peer: Asking, name: str) -> Callable[..., Any]:
    return lambda self, *arguments: peer.ask(name, self, *arguments)


def _attribute(peer: Asking, name: str) -> property:
    return property(lambda self: peer.ask("getattr", self, name))


def _shown(name: str, known: list[type], known_name: str | None) -> type | None:
    """Return the class itself if it is loaded here, else a class of its name derived from the nearest known base."""
    module, _, path = (known_name or "").partition(":")
    if isinstance(found := getattr(sys.modules.get(module), path or " ", None), type):
        return found
    if not known or known[0].__name__ == name:
        return known[0] if known else None
    try:
        return type(known[0])(name, (known[0],), {})
    except Exception:  # some classes cannot be subclassed
        return known[0]
