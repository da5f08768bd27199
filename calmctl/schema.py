"""Convert nested dictionaries to (nested) frozen dataclasses and back, with errors that a user can act on."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from calmctl.errors import UserError

T = TypeVar("T")


def from_dict(schema: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build `schema` from `values`; `where` is the dotted path of `values`, used in messages.

    Raises:
        UserError: unknown key, missing key, wrong type, or a value that `__post_init__` refuses.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'the configuration'}: expected a group of settings, got {values!r}")
    fields = field_types(schema)
    for key in values:
        if key not in fields:
            raise unknown_key(_join(where, str(key)), list(fields))
    arguments = {}
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]
        path = _join(where, field.name)
        if field.name in values:
            arguments[field.name] = _convert(fields[field.name], values[field.name], path)
        elif field.init and _is_required(field):
            expected = describe_type(fields[field.name])
            raise UserError(f"{path}: missing ({expected}); set it in the preset or with {path}=...")
    try:
        return schema(**arguments)
    except (UserError, ValueError) as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error


def to_dict(config: object) -> dict[str, Any]:
    """Return `config` (a dataclass or a mapping) as nested dictionaries of plain YAML and JSON values."""
    plain = _plain(config)
    if not isinstance(plain, dict):
        raise TypeError(f"expected a dataclass or a mapping, got {type(config).__name__}")
    return plain


def field_types(schema: type) -> dict[str, Any]:
    """Return the resolved annotation of every field that the constructor of `schema` takes."""
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema) if field.init}


def check_choices(config: object, where: str = "") -> None:
    """Raise ValueError for a field of a literal type that holds another value.

    For dataclasses that Python code builds; `from_dict` checks types itself. `where` is put before the name.
    """
    for name, kind in field_types(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            choices = ", ".join(str(choice) for choice in get_args(kind) if choice != "")
            raise ValueError(f"{where}{name}={getattr(config, name)!r} is not one of {choices}")


Meaning = Literal["identity", "comparison", "free"]


def meaning(
    of: Meaning = "identity",
    *,
    may_differ: bool = False,
    asked_by: tuple[str, str] | None = None,
    before: object = dataclasses.MISSING,
    grows: bool = False,
    instead_of: str = "",
) -> dict[str, Any]:
    """Return a field's metadata: what its setting means for the identity of a run and for comparing runs.

    Args:
        of: `identity` (that of fields without metadata): another value makes another run. `comparison`: only says what
            is compared; `free`: does not change the result; a run may resume with another value of either.
        may_differ: runs whose results are averaged may differ in it.
        asked_by: (setting, name): as `may_differ`, unless the list `setting` beside it contains `name`.
        before: what runs of before there was this setting did; missing = its default.
        grows: a training, finished or not, may go on with a larger value.
        instead_of: the setting beside it in whose place it can be given; only one of the two may be.
    """
    said = {"meaning": of, "asked_by": asked_by, "before": before, "grows": grows, "instead_of": instead_of}
    return said | {"may_differ": may_differ or of == "free"}


def changeable_settings(config: object, comparisons: bool = True) -> Iterator[str]:
    """Yield the settings, as `a.b.c`, with other values of which a run may resume.

    With `comparisons`, also those that only say what is compared.
    """
    meant = ("free", "comparison") if comparisons else ("free",)
    return _chosen(config, lambda field, _: field.metadata.get("meaning") in meant)


def growing_settings(config: object) -> Iterator[str]:
    """Yield the settings, as `a.b.c`, with larger values of which a training may go on."""
    return _chosen(config, lambda field, _: bool(field.metadata.get("grows")))


def differing_settings(config: object) -> list[str]:
    """Return the settings, as `a.b.c`, in which runs whose results are averaged may differ."""

    def may_differ(field: dataclasses.Field[Any], group: object) -> bool:
        setting, name = field.metadata.get("asked_by") or ("", "")
        return bool(field.metadata.get("may_differ")) or bool(setting and name not in getattr(group, setting))

    return list(_chosen(config, may_differ))


def default_settings(config: object) -> Iterator[str]:
    """Yield the settings, as `a.b.c`, that have their field's default; groups that have it as a whole count as one."""

    def is_default(field: dataclasses.Field[Any], group: object) -> bool:
        factory = field.default_factory
        return bool(getattr(group, field.name) == (field.default if factory is dataclasses.MISSING else factory()))

    return _chosen(config, is_default)


def settings_of_before(config: object) -> dict[str, bool]:
    """Return the settings, as `a.b.c`, that know what runs of before them did -> whether that is their value."""

    def before(field: dataclasses.Field[Any]) -> object:
        return field.metadata.get("before", dataclasses.MISSING)

    same = set(_chosen(config, lambda field, group: before(field) == getattr(group, field.name)))
    return {name: name in same for name in _chosen(config, lambda field, _: before(field) is not dataclasses.MISSING)}


def _chosen(config: object, is_chosen: Callable[[dataclasses.Field[Any], object], bool]) -> Iterator[str]:
    """Yield the settings, as `a.b.c`, for which `is_chosen(field, group that has it)` is true."""
    for field in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        if is_chosen(field, config):
            yield field.name
        else:
            yield from (f"{field.name}.{path}" for path in _chosen(getattr(config, field.name), is_chosen))


def nested_schema(annotation: Any) -> type | None:
    """Return the dataclass that `annotation` is, alone or in an optional type; None if there is none."""
    candidates = get_args(annotation) if _is_union(annotation) else (annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


def unknown_key(path: str, valid: Sequence[str], near: Sequence[str] | None = None) -> UserError:
    """Return the error for a key that does not exist, with the valid keys of its level.

    Args:
        near: settings that it may mean; None = the closest key of its level.
    """
    parent, _, key = path.rpartition(".")
    near = difflib.get_close_matches(key, valid, n=1) if near is None else near
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    level = f"in {parent!r}" if parent else "at the top level"
    return UserError(f"unknown setting {path!r}{hint}; valid {level}: {', '.join(sorted(valid)) or 'none'}")


def describe_type(annotation: Any) -> str:
    """Name a type the way a user would write it in YAML."""
    if annotation is type(None):
        return "null"
    if _is_union(annotation):
        return " or ".join(describe_type(member) for member in get_args(annotation))
    origin = get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if origin in (list, tuple, Sequence, set, frozenset):
        members = [member for member in get_args(annotation) if member not in (Ellipsis, Any)]
        return f"a list (each {describe_type(members[0])})" if members else "a list"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in annotation)
    if nested_schema(annotation) or origin in (dict, Mapping) or annotation is dict:
        return "a group of settings"
    names = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _convert(annotation: Any, value: Any, path: str) -> Any:
    """Return `value` as `annotation` or raise an error that names `path`, the value and what is expected."""
    if annotation is Any:
        return value
    if _is_union(annotation):
        return _convert_union(annotation, value, path)
    schema = nested_schema(annotation)
    if schema is not None:
        return value if isinstance(value, schema) else from_dict(schema, value, path)
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(annotation)):
            return value
    elif origin in (list, tuple, Sequence, set, frozenset):
        if isinstance(value, Sequence) and not isinstance(value, str):
            return _convert_sequence(annotation, value, path)
    elif origin in (dict, Mapping):
        if isinstance(value, Mapping):
            of = get_args(annotation)[1] if get_args(annotation) else Any
            return {key: _convert(of, item, _join(path, str(key))) for key, item in value.items()}
    else:
        converted = _convert_scalar(annotation, value)
        if converted is not _WRONG:
            return converted
    raise UserError(f"{path}={_shown(value)}: expected {describe_type(annotation)}")


_WRONG = object()


def _convert_scalar(annotation: Any, value: Any) -> Any:
    """Convert one plain value without loss (1e3 is an integer, 1.5 is not), or return `_WRONG`."""
    if annotation is type(None):
        return None if value is None else _WRONG
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return next((member for member in annotation if value in (member, member.value)), _WRONG)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is float and is_number:
        return float(value)
    if annotation is int and is_number and float(value).is_integer():
        return int(value)
    if annotation is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    if annotation is str and isinstance(value, int) and is_number:
        return str(value)
    if annotation in (str, bool) and isinstance(value, annotation):
        return value
    return _WRONG


def _convert_union(annotation: Any, value: Any, path: str) -> Any:
    """Convert to the first member that takes `value`; an exact type wins over a conversion."""
    members = get_args(annotation)
    if type(value) in members:
        return value
    if (schema := nested_schema(annotation)) is not None and isinstance(value, Mapping):
        return from_dict(schema, value, path)
    for member in members:
        try:
            return _convert(member, value, path)
        except UserError:
            continue
    raise UserError(f"{path}={_shown(value)}: expected {describe_type(annotation)}")


def _convert_sequence(annotation: Any, value: Sequence[Any], path: str) -> Any:
    origin = get_origin(annotation) or annotation
    arguments = get_args(annotation)
    if origin is tuple and arguments and Ellipsis not in arguments:
        if len(arguments) != len(value):
            raise UserError(f"{path}={_shown(value)}: expected {len(arguments)} values, got {len(value)}")
        members = list(arguments)
    else:
        members = [arguments[0] if arguments else Any] * len(value)
    pairs = enumerate(zip(members, value, strict=True))
    items = [_convert(member, item, f"{path}[{i}]") for i, (member, item) in pairs]
    return tuple(items) if origin in (tuple, Sequence) else origin(items)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
