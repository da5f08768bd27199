"""How the judge compares, measures and computes with objects of the program that are not plain values.

The program is not trusted with operations that involve a value of the tests: an object that claims to equal 2 may claim
to equal anything. Instead, before it sees such a value, it is asked which of its own parts it equals (`worth`), and the
judge compares and computes with that part. Two objects of the program's own classes are compared by the program, if
they differ from altered copies of themselves (`alike`).
"""

from collections.abc import Callable
from typing import Any

from evals.sandbox.peer import Peer
from evals.sandbox.remote import Remote
from evals.sandbox.specials import ARITHMETIC, COMPARISONS, IN_PLACE, MEASURES
from evals.sandbox.values import IMMUTABLE

_COMPUTING = ("__neg__", "__pos__", "__abs__", "__invert__", "__round__")


class Evidence:
    """Operations on objects of the program, decided by the judge.

    An object that the program computed from a value of the tests is *told*: the program can choose `f(1) - 2` once it
    sees the 2. Tests may look at it, but not compare or count it.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.told: dict[int, Remote] = {}

    def ways(self) -> dict[str, Callable[..., Any]]:
        """Return the operations by the names of their special methods."""
        found: dict[str, Callable[..., Any]] = {"__contains__": self.contains}
        for name, compute in COMPARISONS.items():
            found[name] = self._comparison(name, compute)
        for name in MEASURES:
            found[name] = self._measure(name)
        for name, compute in ARITHMETIC.items():
            found[name] = self._arithmetic(name, compute, is_reflected=False)
            found[f"__r{name[2:]}"] = self._arithmetic(name, compute, is_reflected=True)
        for name in IN_PLACE:
            found[name] = self._change(name)
        return {name: _as_method(way) for name, way in found.items()}

    def worth(self, value: Any, of_order: bool = False) -> list[Any]:
        """Return the plain value that an object is compared as, in a list that is empty if there is none.

        Args:
            of_order: whether an object that equals none of its parts may be compared as its only attribute.
        """
        if id(value) in self.told:
            raise TypeError("what the program computed from a value of the tests is compared with another one")
        equal, only = self.peer.ask("worth", value)
        if not equal:
            return list(only) if of_order else []
        return equal[:1]

    def contains(self, value: Any, item: Any) -> bool:
        """Return whether an object contains an item: yields it, or claims it without claiming to contain everything."""
        if id(value) in self.told:
            raise TypeError("what the program computed from a value of the tests is searched for another one")
        if not isinstance(item, Remote):
            items, length = self.peer.ask("contents", value)
            if items is not None and length not in (None, len(items)):
                raise TypeError("an object has another length than it yields items")
            if items is not None and item in items:
                return True
            others = [item, not item, [item], f"{item}?", 10**9 + 7, -(10**9) - 7, 0.123456789, None, object]
            if all(self._denies(value, other) is False for other in others[1:]):
                return False
        return self.peer.ask("__contains__", value, item) is True

    def _denies(self, value: Any, item: Any) -> bool:
        try:
            return self.peer.ask("__contains__", value, item) is not True
        except Exception:
            return True

    def _comparison(self, name: str, compare: Callable[[Any, Any], Any]) -> Callable[..., Any]:
        is_equality = name in ("__eq__", "__ne__")

        def way(value: Any, other: Any) -> Any:
            if not isinstance(other, Remote):
                worth = self.worth(value, of_order=not is_equality)
                return compare(worth[0], other) if worth else NotImplemented
            if value is other and is_equality:
                return name == "__eq__"
            if is_equality:
                return (self.peer.ask("alike", value, other) is True) == (name == "__eq__")
            reverse = {"__lt__": "__gt__", "__gt__": "__lt__", "__le__": "__gt__", "__ge__": "__lt__"}[name]
            return self.peer.ask("ordered", name, reverse, value, other) is True

        return way

    def _measure(self, name: str) -> Callable[..., Any]:
        def way(value: Any, *arguments: Any) -> Any:
            if id(value) not in self.told:
                return self.peer.ask(name, value, *arguments)
            if name not in _COMPUTING:
                raise TypeError("what the program computed from a value of the tests is counted")
            return self._tell(self.peer.ask(name, value, *arguments))

        return way

    def _arithmetic(self, name: str, compute: Callable[[Any, Any], Any], is_reflected: bool) -> Callable[..., Any]:
        def way(value: Any, other: Any) -> Any:
            is_told = id(value) in self.told
            operands = (other, value) if is_reflected else (value, other)
            if isinstance(other, Remote):
                result = self.peer.ask(name, *operands)
                return self._tell(result) if is_told or id(other) in self.told else result
            if not is_told and (worth := self.worth(value)):
                return compute(other, worth[0]) if is_reflected else compute(worth[0], other)
            return self._tell(self.peer.ask(name, *operands))

        return way

    def _change(self, name: str) -> Callable[..., Any]:
        def way(value: Any, other: Any) -> Any:
            result = self.peer.ask(name, value, other)
            return result if result is value or isinstance(other, Remote) else self._tell(result)

        return way

    def _tell(self, result: Any) -> Any:
        if not isinstance(result, Remote) or isinstance(result, IMMUTABLE):
            raise TypeError(
                "the program says what it computes from a value of the tests; its word is not taken on that"
            )
        self.told[id(result)] = result
        return result


def _as_method(way: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *arguments: way(self, *arguments)
