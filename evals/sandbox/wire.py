"""What judge and candidate say to each other: plain values, and references to whatever else the candidate holds.

The judge never unpickles, evaluates or compares anything but the plain values it builds here itself, so that nothing
the candidate sends can run in the judge's process.
"""

import builtins
import importlib
import json
import os
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

MAX_MESSAGE = 256 * 2**20
MANY_ITEMS = 2**16
"""A list or tuple this long, returned by a program, is fetched in pieces where it is needed."""
_HEADER = struct.Struct("<Q")
_SMALL = 2**63
_AS_IS = (type(None), bool, float, str)
_ALL_AS_IS = frozenset(_AS_IS)
_BETWEEN = "|"
"""What separates strings that are written as one, if none has it: JSON need not escape it."""

# Tag -> the type, what it is written as (in values that can be written themselves), and how it is made again.
_TYPES: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": (tuple, list, tuple),
    "set": (set, list, set),
    "frozenset": (frozenset, list, frozenset),
    "complex": (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    "bytes": (bytes, lambda value: value.decode("latin-1"), lambda text: text.encode("latin-1")),
    "bytearray": (bytearray, lambda value: value.decode("latin-1"), lambda text: bytearray(text, "latin-1")),
    "range": (range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    "Counter": (Counter, lambda value: [list(item) for item in value.items()], lambda items: Counter(dict(items))),
    "OrderedDict": (OrderedDict, lambda value: [list(item) for item in value.items()], OrderedDict),
    "defaultdict": (defaultdict, lambda value: [list(item) for item in value.items()], lambda x: defaultdict(None, x)),
    "dict": (dict, lambda value: [list(item) for item in value.items()], dict),
    "deque": (deque, lambda value: [list(value), value.maxlen], lambda parts: deque(*parts)),
    "dict_keys": (type({}.keys()), list, lambda keys: dict.fromkeys(keys).keys()),
    "dict_items": (type({}.items()), lambda value: [list(item) for item in value], lambda items: dict(items).items()),
}
# The same for types of modules that are loaded only when they are needed: most programs do without.
_LATE: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "decimal.Decimal": (str, lambda kind, text: kind(text)),
    "fractions.Fraction": (
        lambda value: [value.numerator, value.denominator],
        lambda kind, parts: kind(*parts),
    ),
    "datetime.date": (lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.datetime": (lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.time": (lambda value: value.isoformat(), lambda kind, text: kind.fromisoformat(text)),
    "datetime.timedelta": (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda kind, parts: kind(*parts),
    ),
}
_TAGS = {entry[0]: tag for tag, entry in _TYPES.items()}
_BASES = (tuple, set, frozenset, dict, bytes)


def encode(value: Any, refer: Callable[[Any], dict[str, Any]]) -> Any:
    """Return `value` as JSON can hold it; `refer` makes a reference to what is no plain value.

    A value of a subclass of a plain type becomes one of the plain type: what it overrides stays behind.
    """
    kind: type = type(value)
    if kind in _AS_IS:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else {"int": hex(value)}
    if kind is list:
        return _encode_list(value, refer)
    tag = _TAGS.get(kind)
    if tag is None:
        if isinstance(value, int):
            return encode(int.__pos__(value), refer)
        if isinstance(value, float):
            return float.__pos__(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, list):
            return _encode_list(list(value), refer)
        if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
            return encode(value.item(), refer)
        late = f"{kind.__module__}.{kind.__qualname__}"
        if late in _LATE:
            return {late: encode(_LATE[late][0](value), refer)}
        if kind is type and value in vars(builtins).values():
            return {"type": str(value.__name__)}
        base = next((base for base in _BASES if isinstance(value, base)), None)
        if base is None:
            return refer(value)
        tag = _TAGS[base]
    return {tag: encode(_TYPES[tag][1](value), refer)}


def _encode_list(items: list[Any], refer: Callable[[Any], dict[str, Any]]) -> Any:
    """Write a list of strings as one string, which takes JSON much less time."""
    kinds = set(map(type, items))
    if kinds == {str}:
        text = _BETWEEN.join(items)
        if text.count(_BETWEEN) == len(items) - 1:
            return {"texts": text}
    return items if kinds <= _ALL_AS_IS else [encode(item, refer) for item in items]


def decode(message: Any, resolve: Callable[[int], Any]) -> Any:
    """Return the value of a message; `resolve` gives what a reference stands for.

    Raises:
        ValueError: it is no message of `encode`.
    """
    if type(message) is list:
        if _ALL_AS_IS.issuperset(map(type, message)):
            return message
        return [decode(item, resolve) for item in message]
    if type(message) is not dict:
        return message
    if len(message) != 1:
        raise ValueError("a tagged value has one tag")
    ((tag, content),) = message.items()
    if tag == "texts":
        return content.split(_BETWEEN)
    if tag == "int":
        return int(content, 16)
    if tag == "ref":
        return resolve(int(content))
    if tag == "type":
        found = getattr(builtins, content)
        return found if isinstance(found, type) else None
    if tag in _LATE:
        module, _, name = tag.partition(".")
        return _LATE[tag][1](getattr(importlib.import_module(module), name), decode(content, resolve))
    if tag not in _TYPES:
        raise ValueError(f"unknown tag {tag[:20]!r}")
    return _TYPES[tag][2](decode(content, resolve))


def send(descriptor: int, message: Any) -> None:
    """Write one message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    view = memoryview(_HEADER.pack(len(body)) + body)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> Any:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
        ValueError: what came is no message.
    """
    (size,) = _HEADER.unpack(_read(descriptor, _HEADER.size))
    if size > MAX_MESSAGE:
        raise ValueError(f"a message of {size} bytes")
    return json.loads(_read(descriptor, size))


def _read(descriptor: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 2**20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
