"""The types whose values are copied between judge and candidate, and how each is encoded and rebuilt.

Values are rebuilt from plain parts by the constructors named here, so nothing that a program sends can run code in the
judge's process, or be an object with its own `__eq__` there.
"""

import builtins
import importlib
import sys
import types
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from evals.sandbox import packages
from evals.sandbox.set_order import in_order

IMMUTABLE = (tuple, frozenset, str, bytes, int, float, complex)
"""Objects of the program's classes derived from these are rebuilt with their value, and with the class's methods."""
MUTABLE = (dict, list, set, bytearray, deque)


class Shared(NamedTuple):
    """How a mutable type is sent.

    Attributes:
        items: returns the contents as a list of values that can be encoded.
        fill: replaces an object's contents by such a list.
        make: returns an empty object, given the `extra` of the original.
        extra: returns what an empty object needs besides (`maxlen` of a deque, dtype and shape of an array).
    """

    items: Callable[[Any], Any] = list
    fill: Callable[[Any, Any], None] = lambda value, items: _replace(value, items)
    make: Callable[[Any], Any] = lambda extra: []
    extra: Callable[[Any], Any] = lambda value: None


def _replace(value: Any, items: Any) -> None:
    value.clear()
    value.extend(items)


def _replace_pairs(value: Any, items: Any) -> None:
    dict.clear(value)
    for key, item in items:
        dict.__setitem__(value, key, item)


def _replace_members(value: set[Any], items: Any) -> None:
    value.clear()
    value.update(items)


def _replace_elements(value: Any, items: list[Any]) -> None:
    value[...] = packages.make_array(value.dtype.str, value.shape, items)


def _pairs(value: Any) -> list[list[Any]]:
    return [list(pair) for pair in dict.items(value)]


SHARED: dict[type, tuple[str, Shared]] = {
    list: ("list", Shared()),
    dict: ("dict", Shared(_pairs, _replace_pairs, lambda extra: {})),
    set: ("set", Shared(list, _replace_members, lambda extra: set())),
    bytearray: ("bytearray", Shared(list, _replace, lambda extra: bytearray())),
    deque: ("deque", Shared(list, _replace, lambda extra: deque([], extra), lambda value: value.maxlen)),
    defaultdict: (
        "defaultdict",
        Shared(_pairs, _replace_pairs, lambda extra: defaultdict(extra), lambda value: value.default_factory),
    ),
    OrderedDict: (
        "OrderedDict",
        Shared(
            lambda value: [list(pair) for pair in value.items()],
            lambda value, items: (value.clear(), value.update(items))[0],
            lambda extra: OrderedDict(),
        ),
    ),
    Counter: ("Counter", Shared(_pairs, _replace_pairs, lambda extra: Counter())),
}
SHARED_BY_TAG = {tag: shared for tag, shared in SHARED.values()}
_ARRAY = Shared(
    lambda value: value.ravel().tolist(),
    _replace_elements,
    lambda extra: packages.make_array(extra[0], extra[1], None),
    lambda value: [packages.dtype_of(value), list(value.shape)],
)
SHARED_BY_TAG["ndarray"] = _ARRAY


def is_shared(kind: type) -> bool:
    """Return whether objects of a type are copied and their changes sent."""
    if kind in SHARED:
        return True
    numpy = sys.modules.get("numpy") if kind.__name__ == "ndarray" else None
    if numpy is not None and getattr(numpy, "ndarray", None) is kind:
        SHARED[kind] = ("ndarray", _ARRAY)
        return True
    return False


def parts(value: Any) -> list[Any]:
    """Return a mutable object's contents, as objects that keep their identity (`is`) as long as nothing changes."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if type(value) in (list, set, deque, bytearray):
        return list(value)
    return [sys.intern(value.tobytes().hex())] if value.dtype.kind != "O" else list(value.ravel())


# Tag -> the type, how it is encoded (as values that can be encoded themselves), and how it is rebuilt.
COPIED: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": (tuple, list, tuple),
    "frozenset": (frozenset, list, lambda items: in_order(frozenset, items)),
    "complex": (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    "bytes": (bytes, lambda value: value.decode("latin-1"), lambda text: text.encode("latin-1")),
    "memoryview": (
        memoryview,
        lambda value: [value.tobytes(), value.format, value.readonly],
        lambda parts: memoryview(parts[0] if parts[2] else bytearray(parts[0])).cast(parts[1]),
    ),
    "range": (range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    "slice": (slice, lambda value: [value.start, value.stop, value.step], lambda parts: slice(*parts)),
    "dict_keys": (type({}.keys()), list, lambda keys: dict.fromkeys(keys).keys()),
    "dict_values": (type({}.values()), list, lambda values: dict(enumerate(values)).values()),
    "dict_items": (type({}.items()), lambda value: [list(item) for item in value], lambda items: dict(items).items()),
    "odict_keys": (type(OrderedDict().keys()), list, lambda keys: OrderedDict.fromkeys(keys).keys()),
    "odict_items": (type(OrderedDict().items()), list, lambda items: OrderedDict(items).items()),
    "odict_values": (type(OrderedDict().values()), list, lambda values: OrderedDict(enumerate(values)).values()),
    "mappingproxy": (types.MappingProxyType, dict, types.MappingProxyType),
    "UserDict": (UserDict, lambda value: value.data, lambda data: _with_data(UserDict(), data, dict)),
    "UserList": (UserList, lambda value: value.data, lambda data: _with_data(UserList(), data, list)),
    "UserString": (UserString, lambda value: value.data, lambda data: _with_data(UserString(""), data, str)),
    "ChainMap": (ChainMap, lambda value: value.maps, lambda maps: ChainMap(*maps)),
    "SimpleNamespace": (types.SimpleNamespace, vars, lambda fields: types.SimpleNamespace(**fields)),
    "Ellipsis": (type(...), lambda value: None, lambda nothing: ...),
    "NotImplemented": (type(NotImplemented), lambda value: None, lambda nothing: NotImplemented),
}
TAGS = {entry[0]: tag for tag, entry in COPIED.items()}


def _with_data(value: Any, data: Any, kind: type) -> Any:
    if type(data) is not kind:
        raise ValueError(f"data of a {type(data).__name__}")
    value.data = data
    return value


# The same for types of modules that are imported on demand: most programs need none.
LATE: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "decimal.Decimal": (str, lambda kind, text: kind(text)),
    "fractions.Fraction": (lambda value: [value.numerator, value.denominator], lambda kind, parts: kind(*parts)),
    "datetime.date": (lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.datetime": (lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.time": (lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.timedelta": (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda kind, parts: kind(*parts),
    ),
    "datetime.timezone": (
        lambda value: value.utcoffset(None),
        lambda kind, offset: kind(offset),
    ),
    "array.array": (
        lambda value: [value.typecode, value.tolist()],
        lambda kind, parts: kind(parts[0], parts[1]),
    ),
    "uuid.UUID": (str, lambda kind, text: kind(text)),
    "pathlib.PosixPath": (str, lambda kind, text: kind(text)),
    "pathlib.PurePosixPath": (str, lambda kind, text: kind(text)),
    "pathlib.PureWindowsPath": (str, lambda kind, text: kind(text)),
    "ipaddress.IPv4Address": (str, lambda kind, text: kind(text)),
    "ipaddress.IPv6Address": (str, lambda kind, text: kind(text)),
    "ipaddress.IPv4Network": (str, lambda kind, text: kind(text)),
    "ipaddress.IPv6Network": (str, lambda kind, text: kind(text)),
    "pandas._libs.tslibs.timestamps.Timestamp": (lambda value: value.isoformat(), lambda kind, text: kind(text)),
    "pandas.Series": (
        lambda value: [value.tolist(), value.index.tolist(), value.name, str(value.dtype)],
        lambda kind, parts: kind(parts[0], index=parts[1], name=parts[2], dtype=parts[3]),
    ),
    "pandas.DataFrame": (
        lambda value: [value.columns.tolist(), value.index.tolist(), [value.iloc[:, i] for i in range(value.shape[1])]],
        lambda kind, parts: packages.make_frame(kind, *parts),
    ),
}


_PACKAGES = frozenset(("numpy", "pandas", "sympy", "scipy", "networkx"))
_WITH_EFFECTS = frozenset(("antigravity", "this", "idlelib"))  # when imported
_PLAIN_MODULES = frozenset(("builtins", "collections", "collections.abc", "types", "typing", "abc", "numbers", "enum"))


def known_name(kind: type) -> str | None:
    """Return `module:name` of a class that is found in its module, or None."""
    module, name = getattr(kind, "__module__", None), getattr(kind, "__qualname__", None)
    if type(module) is str and type(name) is str and vars(sys.modules.get(module, builtins)).get(name) is kind:
        return f"{module}:{name}"
    name = next((name for name, each in vars(types).items() if each is kind), None)
    return f"types:{name}" if name else None


def is_trusted(module: str) -> bool:
    """Return whether the judge may import a module that the program names."""
    return module.partition(".")[0] in (sys.stdlib_module_names | _PACKAGES) - _WITH_EFFECTS


def is_plain(kind: type, name: str) -> bool:
    """Return whether the judge accepts a class by its known name: the behaviour of its objects is known."""
    module = name.partition(":")[0]
    is_error = issubclass(kind, BaseException) and is_trusted(module)
    return is_error or module in _PLAIN_MODULES or name.replace(":", ".") in LATE


def find_known(name: str) -> Any:
    """Return the class of a known name.

    Raises:
        ValueError: the judge does not accept such a class.
    """
    module, _, attribute = name.partition(":")
    if is_trusted(module):
        found = getattr(importlib.import_module(module), attribute, None)
        if isinstance(found, type) and is_plain(found, name):
            return found
    raise ValueError(f"unknown type {name[:40]!r}")


def as_base(value: Any, base: Any) -> Any:
    """Convert an object to the built-in type that its class is derived from, ignoring overridden methods."""
    if issubclass(base, dict):
        return dict(dict.items(value))
    if base in (int, float, complex):
        return base.__pos__(value)
    if base in (str, bytes):
        return base.__getitem__(value, slice(None)) if base is bytes else str.__str__(value)
    return base(base.__iter__(value))
