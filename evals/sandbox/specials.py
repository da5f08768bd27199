"""Python's operations by the names of the special methods that define them for a class."""

import copy
import math
import operator
import os
from collections.abc import Callable
from typing import Any

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "__lt__": operator.lt,
    "__le__": operator.le,
    "__gt__": operator.gt,
    "__ge__": operator.ge,
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "__add__": operator.add,
    "__sub__": operator.sub,
    "__mul__": operator.mul,
    "__matmul__": operator.matmul,
    "__truediv__": operator.truediv,
    "__floordiv__": operator.floordiv,
    "__mod__": operator.mod,
    "__divmod__": divmod,
    "__pow__": pow,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__xor__": operator.xor,
    "__lshift__": operator.lshift,
    "__rshift__": operator.rshift,
}
IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    f"__i{name}__": getattr(operator, f"i{name}")
    for name in "add sub mul matmul truediv floordiv mod pow and or xor lshift rshift".split()
}  # fmt: skip
MEASURES: dict[str, Callable[..., Any]] = {
    "__bool__": bool,
    "__len__": len,
    "__hash__": hash,
    "__int__": int,
    "__float__": float,
    "__complex__": complex,
    "__index__": operator.index,
    "__neg__": operator.neg,
    "__pos__": operator.pos,
    "__abs__": abs,
    "__invert__": operator.invert,
    "__round__": round,
    "__trunc__": math.trunc,
    "__floor__": math.floor,
    "__ceil__": math.ceil,
}
ACCESS: dict[str, Callable[..., Any]] = {
    "__call__": lambda function, arguments, keywords: function(*arguments, **dict(keywords)),
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__contains__": operator.contains,
    "__iter__": iter,
    "__next__": next,
    "__reversed__": reversed,
    "__str__": str,
    "__repr__": repr,
    "__format__": format,
    "__bytes__": bytes,
    "__dir__": dir,
    "__fspath__": os.fspath,
    "__enter__": lambda value: type(value).__enter__(value),
    "__exit__": lambda value, *error: type(value).__exit__(value, *error),
}
DEFINED = {**COMPARISONS, **ARITHMETIC, **IN_PLACE, **MEASURES, **ACCESS}
OPERATIONS = DEFINED | {"__copy__": copy.copy, "__deepcopy__": copy.deepcopy}
_REFLECTED = {f"__r{name[2:]}": name for name in ARITHMETIC}
_DECISIVE = frozenset((*COMPARISONS, *ARITHMETIC, *MEASURES, "__getitem__", "__contains__", "__iter__"))


def of_class(kind: type, leaving_out: tuple[type, ...]) -> list[str]:
    """Return the operations that a class defines, except those inherited from `leaving_out` or `object`."""
    found = []
    for name in (*DEFINED, *_REFLECTED):
        for base in kind.__mro__:
            if name in vars(base):
                if base is not object and base not in leaving_out and vars(base)[name] is not None:
                    found.append(name)
                break
    return found


def are_decisive(names: list[str]) -> bool:
    """Return whether any of these operations makes a class compare, count or compute in its own way."""
    return not _DECISIVE.isdisjoint(names)
