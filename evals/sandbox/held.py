"""Changes of the program to objects of the tests, held back until the tests have finished a comparison.

In `assert f(x) == x`, a program that empties `x` must not empty the value that its result is compared with. If the
result is `x` itself, or contains it, the tests get a copy of `x` as the program left it.
"""

from typing import Any

from evals.sandbox.values import SHARED, is_shared
from evals.sandbox.wire import Codec


class Held:
    """Changes of the program to objects of the tests that the tests do not see yet."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.changes: list[tuple[int, Any]] = []
        self.copies: dict[int, tuple[Any, Any]] = {}
        codec.same = self.as_left
        codec.original = self.original

    def hold(self, number: int, items: Any) -> None:
        """Record the new contents of an object without applying them."""
        self.changes.append((number, items))

    def settle(self) -> None:
        """Apply the recorded changes to the objects of the tests."""
        while self.changes:
            self.codec.followed.fill(*self.changes.pop(0))
        self.copies.clear()

    def settled(self, value: Any) -> Any:
        """Settle; return a result that is about to be assigned, with copies replaced by the tests' own objects."""
        if type(value) is tuple and any(id(item) in self.copies for item in value):
            value = tuple(map(self.original, value))
        value = self.original(value)
        self.settle()
        return value

    def original(self, value: Any) -> Any:
        """Return the object of the tests that `value` is a copy of, or `value`."""
        return self.copies[id(value)][1] if id(value) in self.copies else value

    def as_left(self, number: int) -> Any:
        """Return a shared object for use in an answer: itself, or a changed copy if recorded changes affect it."""
        value = self.codec.followed.objects[number].value
        if not self.changes:
            return value
        shared = self.codec.followed.objects
        changed = {other: shared[other].value for other, _ in self.changes if other in shared}
        before = {other: SHARED[type(each)][1].items(each) for other, each in changed.items()}
        copied: dict[int, Any] = {}
        for each in self.changes:
            self.codec.followed.fill(*each)
        try:
            copy = _copy(value, copied)
        finally:
            for other, items in before.items():
                self.codec.followed.fill(other, items)
        if copied.keys().isdisjoint(map(id, changed.values())):
            return value
        self.copies[id(copy)] = (copy, value)
        return copy


def _copy(value: Any, copied: dict[int, Any]) -> Any:
    """Copy a value deeply; `copied` maps the ids of copied objects to their copies."""
    if id(value) in copied:
        return copied[id(value)]
    kind = type(value)
    if kind is tuple:
        return tuple(_copy(item, copied) for item in value)
    if not is_shared(kind):
        return value
    shared = SHARED[kind][1]
    copied[id(value)] = copy = shared.make(shared.extra(value))
    items = shared.items(value)
    if isinstance(value, dict):
        shared.fill(copy, [[key, _copy(item, copied)] for key, item in items])
    else:
        shared.fill(copy, [_copy(item, copied) for item in items])
    return copy
