"""Encoding of values between judge and candidate: plain values are copied, all other objects referred to by number.

Neither side unpickles or evaluates what the other sends, except that the program unpickles objects of the tests.
"""

import base64
import importlib
import operator
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

from evals.sandbox import packages, specials, values
from evals.sandbox.followed import Followed
from evals.sandbox.set_order import in_order
from evals.sandbox.values import COPIED, IMMUTABLE, LATE, SHARED, SHARED_BY_TAG, TAGS

_SMALL = 2**63
_ALL_AS_IS = frozenset((type(None), bool, float, str))
_AS_IS = _ALL_AS_IS | {int}
_BETWEEN = "|"
"""Separator for strings that are joined into one, if none contains it; JSON does not escape it."""
_BULK = 64
"""Minimum number of items for which a list is checked for a faster encoding."""
_ERROR_FIELDS = tuple("errno filename filename2 name path lineno offset text msg pos doc colno".split())


class Codec:
    """Encodes and decodes values for one side of the pipes.

    A mutable object is copied, and both sides remember which copies belong together: changes are sent with the next
    message (`encode_changes`, `decode_changes`), and a copy that comes back is decoded to the original. An object
    without a plain value is kept here and referred to by number; on the other side, `mirror` makes a proxy for it.
    """

    def __init__(self, is_judge: bool, mirror: Any) -> None:
        self.is_judge = is_judge
        self.mirror = mirror
        self.kept: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.described: set[int] = set()
        self.others: dict[int, Any] = {}
        self.other_numbers: dict[int, int] = {}
        self.followed = Followed(is_judge)
        self.same: Callable[[int], Any] = lambda number: self.followed.objects[number].value
        self.original: Callable[[Any], Any] = lambda value: value

    # Writing

    def encode(self, value: Any) -> Any:
        """Return `value` as data for JSON."""
        kind = type(value)
        if kind in _ALL_AS_IS:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else {"int": hex(value)}
        if values.is_shared(kind):
            return self._encode_shared(value, kind)
        if kind in TAGS:
            return {TAGS[kind]: self._encode_items(COPIED[TAGS[kind]][1](value))}
        if id(value) in self.other_numbers:
            return {"yours": self.other_numbers[id(value)]}
        if issubclass(kind, type):
            return self._encode_class(value)
        return self._encode_object(value, kind)

    def _encode_items(self, content: Any) -> Any:
        return [self.encode(item) for item in content] if type(content) is list else self.encode(content)

    def _encode_shared(self, value: Any, kind: type) -> Any:
        tag, shared = SHARED[kind]
        value = self.original(value)
        if (known := self.followed.number_of(value)) is not None:
            return {"same": known}
        number = self.followed.add(value)
        if kind is list:
            content = self._encode_list(value)
            return {"list": [number, len(value), None, content]} if number or type(content) is dict else content
        items = self._encode_list(shared.items(value))
        return {tag: [number, len(value), self.encode(shared.extra(value)), items]}

    def _encode_list(self, items: list[Any]) -> Any:
        """Encode a list; those of strings, or of tuples of plain values, in forms that JSON handles much faster."""
        kinds = set(map(type, items))
        if kinds <= _ALL_AS_IS:
            if kinds == {str} and len(items) >= _BULK:
                text = _BETWEEN.join(items)
                if text.count(_BETWEEN) == len(items) - 1:
                    return {"texts": text}
            return items
        if kinds <= _AS_IS:
            if all(type(item) is not int or -_SMALL < item < _SMALL for item in items):
                return items
        elif kinds == {tuple} and len(items) >= _BULK:
            rows = [self._encode_list(list(item)) for item in items]
            if all(type(row) is list and _AS_IS.issuperset(map(type, row)) for row in rows):
                return {"tuples": rows}
        return [self.encode(item) for item in items]

    def _encode_class(self, kind: Any) -> Any:
        name = values.known_name(kind)
        if name and (self.is_judge or values.is_plain(kind, name)):
            return {"type": name}
        number = self._keep(kind)
        if number in self.described:
            return {"mine": number}
        self.described.add(number)
        bases = [self._encode_class(base) for base in kind.__mro__[1:] if base is not object]
        operations = specials.of_class(kind, leaving_out=IMMUTABLE)
        return {"class": [number, str(kind.__name__), bases, operations, name]}

    def _encode_object(self, value: Any, kind: type) -> Any:
        if isinstance(value, types.ModuleType):
            return {"module": str(value.__name__)}
        if isinstance(value, BaseException):
            fields = {key: item for key, item in vars(value).items() if type(key) is str}
            fields |= {name: getattr(value, name) for name in _ERROR_FIELDS if hasattr(value, name)}
            return {
                "error": [self._keep(value), self._encode_class(kind), self.encode(value.args), self.encode(fields)]
            }
        known = values.known_name(kind)
        late = (known or "").replace(":", ".")
        if late in LATE:
            try:
                return {late: self._encode_items(LATE[late][0](value))}
            except TypeError:
                pass
        if known and (parts := packages.numpy_scalar(value)):
            return {"numpy": self._encode_items(parts)}
        if (parts := packages.sympy_parts(value)) is not None:
            return {"sympy": self._encode_items(parts)}
        if self.is_judge and (text := _global_name(value)):
            return {"global": text}
        if self.is_judge and known and not known.startswith("types:") and (data := _pickled(value)):
            return {"pickle": data}
        base = next((base for base in IMMUTABLE if base in kind.__mro__), None)
        if base is None or specials.are_decisive(specials.of_class(kind, leaving_out=IMMUTABLE)):
            content = None
        else:
            content = {"is": self.encode(values.as_base(value, base))}
        special = {types.GeneratorType: "generator", types.CoroutineType: "coroutine"}.get(kind)  # type: ignore[arg-type]
        if special:
            return {special: self._keep(value)}
        return {"object": [self._keep(value), self._encode_class(kind), content]}

    def _keep(self, value: Any) -> int:
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.kept)
            self.kept.append(value)  # keeps it alive, so that its id stays unique
        return self.numbers[id(value)]

    # Mutable objects that both sides have

    def encode_changes(self) -> list[Any]:
        """Return number and items of each shared object that has changed on this side since the last message."""
        return [[number, self._encode_list(items)] for number, items in self.followed.changed()]

    def decode_changes(self, changes: list[Any]) -> list[tuple[int, Any]]:
        """Return number and items of each object changed on the other side, for `Followed.fill`."""
        return [(int(number), self._decode_list(items)) for number, items in changes]

    # Reading

    def decode(self, message: Any) -> Any:
        """Return the value that `encode` has encoded.

        Raises:
            ValueError: `encode` makes no such message.
        """
        if type(message) is list:
            return self._decode_list(message)
        if type(message) is not dict:
            return message
        if len(message) != 1:
            raise ValueError("a tagged value has one tag")
        ((tag, content),) = message.items()
        if tag in SHARED_BY_TAG:
            return self._decode_shared(tag, *content)
        if tag in COPIED:
            return COPIED[tag][2](self.decode(content))
        if tag in LATE:
            module, _, name = tag.rpartition(".")
            return LATE[tag][1](values.find_known(f"{module}:{name}"), self.decode(content))
        if tag in _READERS:
            return _READERS[tag](self, content)
        raise ValueError(f"unknown tag {tag[:20]!r}")

    def _decode_list(self, message: Any) -> list[Any]:
        if type(message) is dict:
            ((tag, content),) = message.items()
            return content.split(_BETWEEN) if tag == "texts" else [tuple(row) for row in content]
        if _AS_IS.issuperset(map(type, message)):
            return message
        return [self.decode(item) for item in message]

    def _decode_shared(self, tag: str, number: int, size: int, extra: Any, items: Any) -> Any:
        shared = SHARED_BY_TAG[tag]
        if tag == "set":  # cannot contain itself; its order depends on how it is built
            value, items = in_order(set, self._decode_list(items)), None
        else:
            value = shared.make(self.decode(extra))
        if number:
            self.followed.add_as(int(number), value, int(size), [])
        if items is not None:
            shared.fill(value, self._decode_list(items))
        if number in self.followed.objects:
            self.followed.objects[number].snapshot = values.parts(value)
        return value

    def _stand_in(self, number: int, make: Callable[[], Any]) -> Any:
        if number not in self.others:
            self.others[number] = made = make()
            self.other_numbers[id(made)] = number
        return self.others[number]

    def find_class(self, name: str) -> Any:
        """Return the class that a message names; the judge accepts only those of `values.find_known`."""
        if self.is_judge:
            return values.find_known(name)
        module, _, path = name.partition(":")
        return operator.attrgetter(path)(importlib.import_module(module))

    def _read_class(self, content: Any) -> Any:
        number, name, bases, operations, known = content
        kinds = [self.decode(base) for base in bases]
        operations = [str(each) for each in operations]
        return self._stand_in(number, lambda: self.mirror.of_class(str(name), kinds, operations, known))

    def _read_object(self, content: Any) -> Any:
        number, kind, inner = content
        kind = self.decode(kind)
        plain = None if inner is None else (self.decode(inner["is"]),)
        return self._stand_in(number, lambda: self.mirror.of_object(kind, plain))

    def _read_error(self, content: Any) -> Any:
        number, kind, arguments, fields = content
        kind, arguments, fields = self.decode(kind), self.decode(arguments), self.decode(fields)
        return self._stand_in(number, lambda: self.mirror.of_error(kind, arguments, fields))

    def _read_own_object(self, content: Any) -> Any:
        ((tag, text),) = content.items()
        if self.is_judge:
            raise ValueError("the program names an object of the judge's modules")
        if tag == "pickle":
            return pickle.loads(base64.b64decode(text))
        module, _, path = text.partition(":")
        return operator.attrgetter(path)(importlib.import_module(module))


def _global_name(value: Any) -> str | None:
    """Return `module:name` of a function that is found in its module, or None."""
    owner = getattr(value, "__objclass__", value)
    module, path = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    if not callable(value) or type(module) is not str or type(path) is not str or module not in sys.modules:
        return None
    try:
        return f"{module}:{path}" if operator.attrgetter(path)(sys.modules[module]) is value else None
    except AttributeError:
        return None


def _pickled(value: Any) -> str | None:
    """Return an object of the tests pickled in base64, or None if it cannot be copied and has to stay here."""
    if hasattr(type(value), "__next__") or type(value).__module__ in ("_io", "io"):
        return None
    try:
        return base64.b64encode(pickle.dumps(value)).decode()
    except Exception:
        return None


_READERS: dict[str, Callable[[Codec, Any], Any]] = {
    "int": lambda codec, text: int(text, 16),
    "same": lambda codec, number: codec.same(number),
    "mine": lambda codec, number: codec.others[number],
    "yours": lambda codec, number: codec.kept[number] if number >= 0 else codec.kept[len(codec.kept)],
    "type": lambda codec, name: codec.find_class(name),
    "class": Codec._read_class,
    "object": Codec._read_object,
    "error": Codec._read_error,
    "generator": lambda codec, number: codec._stand_in(number, lambda: codec.mirror.of_generator(number)),
    "coroutine": lambda codec, number: codec._stand_in(number, lambda: codec.mirror.of_coroutine(number)),
    "module": lambda codec, name: codec.mirror.of_module(name),
    "numpy": lambda codec, content: packages.make_numpy_scalar(*codec.decode(content)),
    "sympy": lambda codec, content: packages.make_sympy(*codec.decode(content)),
    "pickle": lambda codec, text: codec._read_own_object({"pickle": text}),
    "global": lambda codec, text: codec._read_own_object({"global": text}),
}
