"""Changeable objects that judge and candidate both have: what changes on one side is told to the other."""

import operator
from collections.abc import Iterator
from typing import Any

from evals.sandbox.values import SHARED, is_shared, parts

_MAX_OBJECTS, _MAX_ITEMS = 50, 10_000
"""How many changeable objects, and items in them, are followed from one call to the next."""


class _Common:
    """An object of which the other side has a copy: itself, what it held at the last message, its size at first."""

    def __init__(self, value: Any, snapshot: list[Any], size: int) -> None:
        self.value, self.snapshot, self.size = value, snapshot, size


class Followed:
    """The objects of one side that the other has copies of, by the numbers both know them by.

    Attributes:
        is_on: whether what is sent from now on is followed.
        objects: number -> the object.
        last: the highest number given; the judge gives odd ones, the candidate even ones.
    """

    def __init__(self, is_judge: bool) -> None:
        self.is_on = True
        self.objects: dict[int, _Common] = {}
        self.last = 1 if is_judge else 2
        self._numbers: dict[int, int] = {}
        self._size = 0

    def number_of(self, value: Any) -> int | None:
        """Return the number of an object of which the other side has a copy, or None."""
        return self._numbers.get(id(value)) if self.is_on else None

    def add(self, value: Any) -> int:
        """Follow an object that is about to be sent and return its number, or 0 where nothing is followed."""
        if not self.is_on:
            return 0
        self.last += 2
        self.add_as(self.last, value, len(value), parts(value))
        return self.last

    def add_as(self, number: int, value: Any, size: int, snapshot: list[Any]) -> None:
        """Follow an object that has a number."""
        is_shared(type(value))  # An array makes its type known.
        self.objects[number] = _Common(value, snapshot, size)
        self._numbers[id(value)] = number
        self._size += size

    def is_full(self) -> bool:
        """Return whether so many objects are followed that it takes too much time to go on."""
        return len(self.objects) > _MAX_OBJECTS or self._size > _MAX_ITEMS

    def clear(self) -> None:
        """Leave what is shared to each side; what is sent from now on are new copies."""
        self.objects.clear()
        self._numbers.clear()
        self._size = 0

    def changed(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield numbers and items of the objects that have changed here since the last message."""
        for number, common in list(self.objects.items()) if self.is_on else ():
            now = common.value if type(common.value) is list else parts(common.value)
            if len(now) != len(common.snapshot) or not all(map(operator.is_, now, common.snapshot)):
                common.snapshot = list(now)
                yield number, SHARED[type(common.value)][1].items(common.value)

    def fill(self, number: int, items: Any) -> None:
        """Have the object of a number hold what it now holds on the other side."""
        if number in self.objects:
            common = self.objects[number]
            SHARED[type(common.value)][1].fill(common.value, items)
            common.snapshot = parts(common.value)

    def forget(self, mark: int, changes: list[Any]) -> None:
        """Undo a message that is not sent: what it has shared since `last` was `mark`, and the changes in it."""
        for number, _ in changes:
            self.objects[number].snapshot = [changes]  # which is none of its parts: it counts as changed
        for number in [each for each in self.objects if each > mark and each % 2 == mark % 2]:
            common = self.objects.pop(number)
            self._numbers.pop(id(common.value), None)
            self._size -= common.size
