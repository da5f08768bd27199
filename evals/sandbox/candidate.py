"""The candidate process: runs the program's code, then the operations that the judge requests on its objects.

Nothing here is protected from the program, and nothing needs to be: tests, nonce and verdict are in other processes.
"""

import copy
import importlib
import operator
from collections.abc import Iterable
from typing import Any

from evals.sandbox import specials, values
from evals.sandbox.peer import Peer
from evals.sandbox.values import IMMUTABLE, MUTABLE, SHARED, TAGS

_ATOMS = (type(None), bool, int, float, complex, str, bytes)


def serve(reading: int, writing: int) -> None:
    """Answer the judge's requests until it is gone."""
    # As in the reference harness, the program has no `__name__`: what follows `if __name__ == "__main__":` is not run.
    namespace: dict[str, Any] = {}

    def run(code: str) -> None:
        exec(code, namespace)

    operations = {
        **specials.OPERATIONS,
        "run": run,
        "find": lambda name: (namespace[name],) if name in namespace else (),
        "getattr": getattr,
        "setattr": setattr,
        "delattr": delattr,
        "resume": lambda generator, value: generator.send(value),
        "throw": lambda generator, error: generator.throw(error),
        "close": lambda generator: generator.close(),
        "finish": run_coroutine,
        "replace": Replacing().replace,
        "chance": set_chance,
        "worth": worth,
        "alike": alike,
        "ordered": ordered,
        "contents": contents,
    }
    Peer(reading, writing, is_judge=False, operations=operations).serve()


class Replacing:
    """Replaces functions and streams of the interpreter by the tests' substitutes."""

    def __init__(self) -> None:
        self.originals: dict[tuple[str, str], Any] = {}

    def replace(self, module: str, name: str, other: list[Any] | None) -> None:
        """Replace `module.name` by `other[0]`, or restore the original if `other` is None."""
        found = importlib.import_module(module)
        original = self.originals.setdefault((module, name), getattr(found, name))
        setattr(found, name, other[0] if other else original)


def set_chance(state: Any) -> None:
    """Set the state of `random` to that of the tests."""
    import random

    random.setstate(state)


def run_coroutine(coroutine: Any) -> Any:
    """Run a coroutine to its end."""
    import asyncio

    return asyncio.run(coroutine)


def worth(value: Any) -> tuple[list[Any], list[Any]]:
    """Return the plain attributes and conversions that an object equals; also its attribute, if it has just one."""
    attributes = _attributes(value)
    parts = [part for part in attributes.values() if is_plain(part)]
    found = [part for part in [*parts, *_conversions(value)] if _are_equal(value, part)]
    return found, parts if len(attributes) == 1 else []


def alike(first: Any, second: Any) -> bool:
    """Return whether two objects of the program's classes are equal and do not equal everything.

    The first has to differ from some copy of the second with a changed attribute: an `__eq__` that always holds does
    not count.
    """
    if not _are_equal(first, second):
        return False
    return any(not _are_equal(first, other) and not _are_equal(other, first) for other in _altered_copies(second))


def ordered(name: str, reverse: str, first: Any, second: Any) -> bool:
    """Return whether comparison `name` holds; False if the opposite holds too (`b < a`, or `a > b` for `<=`)."""
    compare, back = specials.COMPARISONS[name], specials.COMPARISONS[reverse]
    if not bool(compare(first, second)):
        return False
    is_strict = name in ("__lt__", "__gt__")
    try:
        return not bool(compare(second, first) if is_strict else back(first, second))
    except TypeError:
        return True


def contents(value: Any) -> tuple[list[Any] | None, int | None]:
    """Return an object's items (None if it has none or is an iterator, which would be consumed) and length or None."""
    kind = type(value)
    length = len(value) if hasattr(kind, "__len__") else None
    if not isinstance(value, Iterable) or hasattr(kind, "__next__"):
        return None, length
    return list(value), length


def is_plain(value: Any) -> bool:
    """Return whether a value, and everything in it, is sent to the judge as a copy."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if isinstance(value, dict) and kind in SHARED:
        return all(is_plain(each) for pair in value.items() for each in pair)
    if kind in SHARED or kind in (tuple, frozenset):
        return all(map(is_plain, value))
    return kind in TAGS


def _are_equal(first: Any, second: Any) -> bool:
    try:
        return bool(operator.eq(first, second))
    except Exception:
        return False


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(vars(value)) if hasattr(value, "__dict__") else {}
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _conversions(value: Any) -> list[Any]:
    """Return the plain values that an object converts to: as its built-in base type, and by its own conversions."""
    kind, found = type(value), []
    found += [values.as_base(value, base) for base in (*IMMUTABLE, *MUTABLE) if base in kind.__mro__]
    names = {"__int__": int, "__float__": float, "__complex__": complex, "__str__": str, "__bytes__": bytes}
    makers: list[Any] = [
        make for name, make in names.items() if getattr(kind, name, None) is not getattr(object, name, None)
    ]
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):
        makers.append(dict)
    elif hasattr(kind, "__iter__") and not hasattr(kind, "__next__"):
        makers += [list, tuple, set]
    elif hasattr(kind, "__getitem__") and hasattr(kind, "__len__"):
        makers += [list, tuple]
    for make in makers:
        try:
            found.append(make(value))
        except Exception:
            continue
    return [each for each in found if is_plain(each)]


_ADDITIONS: tuple[tuple[type, Any], ...] = (
    (list, list.append),
    (set, set.add),
    (dict, lambda each, key: dict.__setitem__(each, key, 0)),
)


def _altered_copies(value: Any) -> list[Any]:
    """Return copies of an object, each with one attribute or its contents changed."""
    copies = []
    for kind, change in _ADDITIONS:
        if isinstance(value, kind):
            copies.append(copy.copy(value))
            change(copies[-1], "?")
    for name, part in _attributes(value).items():
        try:
            altered = copy.copy(value)
            object.__setattr__(altered, name, _other(part))
            copies.append(altered)
        except Exception:
            continue
    return copies


def _other(part: Any) -> Any:
    if isinstance(part, bool):
        return not part
    if isinstance(part, int | float | complex):
        return part + 1
    if isinstance(part, str):
        return part + "?"
    if isinstance(part, list | tuple):
        return [*part, None] if isinstance(part, list) else (*part, None)
    if isinstance(part, dict):
        return {**part, "?": None}
    return None if part is not None else 0
