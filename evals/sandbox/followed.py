"""Mutable objects of which judge and candidate both have a copy: changes on one side are sent to the other."""

import operator
from collections.abc import Iterator
from typing import Any

from evals.sandbox.values import SHARED, is_shared, parts

_MAX_OBJECTS, _MAX_ITEMS = 50, 10_000
"""Limits on the mutable objects, and the items in them, that are tracked from one call to the next."""


class _Common:
    """An object that the other side has a copy of, its contents at the last message, and its initial size."""

    def __init__(self, value: Any, snapshot: list[Any], size: int) -> None:
        self.value, self.snapshot, self.size = value, snapshot, size


class Followed:
    """The objects of one side that the other has copies of, by numbers that both sides use.

    Attributes:
        is_on: whether objects sent from now on are tracked.
        objects: number -> the object with what it held at the last message.
        last: the last number that this side gave; the judge gives odd ones, the candidate even ones.
    """

    def __init__(self, is_judge: bool) -> None:
        self.is_on = True
        self.objects: dict[int, _Common] = {}
        self.last = 1 if is_judge else 2
        self._numbers: dict[int, int] = {}
        self._size = 0

    def number_of(self, value: Any) -> int | None:
        """Return the number of an object that the other side has a copy of, or None."""
        return self._numbers.get(id(value)) if self.is_on else None

    def add(self, value: Any) -> int:
        """Track an object that is about to be sent and return its number, or 0 if tracking is off."""
        if not self.is_on:
            return 0
        self.last += 2
        self.add_as(self.last, value, len(value), parts(value))
        return self.last

    def add_as(self, number: int, value: Any, size: int, snapshot: list[Any]) -> None:
        """Track an object under a given number."""
        is_shared(type(value))  # enters the type of NumPy arrays into SHARED
        self.objects[number] = _Common(value, snapshot, size)
        self._numbers[id(value)] = number
        self._size += size

    def is_full(self) -> bool:
        """Return whether so many objects are tracked that it would take too long to go on."""
        return len(self.objects) > _MAX_OBJECTS or self._size > _MAX_ITEMS

    def clear(self) -> None:
        """Stop tracking all objects; objects sent from now on become new copies."""
        self.objects.clear()
        self._numbers.clear()
        self._size = 0

    def changed(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield number and items of each object that has changed on this side since the last message."""
        for number, common in list(self.objects.items()) if self.is_on else ():
            now = common.value if type(common.value) is list else parts(common.value)
            if len(now) != len(common.snapshot) or not all(map(operator.is_, now, common.snapshot)):
                common.snapshot = list(now)
                yield number, SHARED[type(common.value)][1].items(common.value)

    def fill(self, number: int, items: Any) -> None:
        """Replace an object's contents by those that it has on the other side."""
        if number in self.objects:
            common = self.objects[number]
            SHARED[type(common.value)][1].fill(common.value, items)
            common.snapshot = parts(common.value)

    def forget(self, mark: int, changes: list[Any]) -> None:
        """Undo a message that was not sent: untrack objects added since `last` was `mark`, mark `changes` as unsent."""
        for number, _ in changes:
            self.objects[number].snapshot = [changes]  # equals no contents: counts as changed
        for number in [each for each in self.objects if each > mark and each % 2 == mark % 2]:
            common = self.objects.pop(number)
            self._numbers.pop(id(common.value), None)
            self._size -= common.size
