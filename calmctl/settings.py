"""What settings a configuration has, from its dataclasses: names, types, defaults, choices, meanings.

The meaning of a setting is its entry under `Attributes:` in the docstring of its dataclass, or the text that follows
its field.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from calmctl.errors import UserError
from calmctl.schema import describe_type, field_types, nested_schema, to_dict, unknown_key

_ENTRY = re.compile(r"    (\w+(?:, \w+)*):(?: |$)")
_SIMILAR = 0.75


@dataclass(frozen=True)
class Setting:
    """A setting, or a group of settings."""

    name: str
    """As it is typed: `train.lr`."""
    type: str
    meaning: str
    choices: tuple[str, ...] = ()
    default: Any = None
    """As a plain value; None also for one that has to be given, and for a group."""
    is_required: bool = False
    is_group: bool = False


def list_settings(schema: type, default: object = None, prefix: str = "") -> Iterator[Setting]:
    """Yield all settings of a configuration in order of declaration, each group before what is in it.

    Args:
        default: an instance of `schema` with the default values; None = the defaults of the fields.
        prefix: what is put before every name.
    """
    types, said = field_types(schema), meanings(schema)
    for field in dataclasses.fields(schema):
        if not field.init:
            continue
        value = getattr(default, field.name) if default is not None else _default(field)
        kind, name, meaning = types[field.name], f"{prefix}{field.name}", said.get(field.name, "")
        if (group := nested_schema(kind)) is not None:
            yield Setting(name, describe_type(kind), meaning or summary(group), is_group=True)
            yield from list_settings(group, None if value is dataclasses.MISSING else value, f"{name}.")
            continue
        is_required = value is dataclasses.MISSING
        plain = None if is_required else to_dict({"value": value})["value"]
        yield Setting(name, describe_type(kind), meaning, _choices(kind), plain, is_required)


def below(schema: type, settings: Sequence[Setting], key: str) -> list[Setting]:
    """Return the setting `key`, or the group of that name and all in it; of a key below a dictionary, the dictionary.

    Raises:
        UserError: there is none.
    """
    check_key(schema, key)
    inside = [setting for setting in settings if f"{setting.name}.".startswith(f"{key}.")]
    return inside or [each for each in settings if not each.is_group and key.startswith(f"{each.name}.")]


def check_key(schema: type, key: str) -> None:
    """Raise UserError unless there is a setting `key`; below a dictionary there may be any."""
    level: type | None = schema
    parts = key.split(".")
    for i, part in enumerate(parts):
        if level is None:
            raise UserError(f"{key}: {'.'.join(parts[:i])} is one value, it has no setting {part!r}")
        fields = field_types(level)
        if part not in fields:
            path = ".".join(parts[: i + 1])
            raise unknown_key(path, list(fields), nearest(schema, key) or nearest(schema, path))
        level = nested_schema(fields[part])
        if level is None and "dict" in str(fields[part]).lower():
            return


def nearest(schema: type, path: str) -> list[str]:
    """Return the settings that an unknown name may mean, in whatever group they are; at most four.

    The same name in another case or group comes first, then a similar name in the group that was named, then a similar
    name elsewhere, then a setting whose meaning begins with the name (`learning_rate`).
    """
    settings = [setting for setting in list_settings(schema) if not setting.is_group or "." not in setting.name]
    group, _, name = _folded(path).rpartition(".")
    if not name:
        return []
    last = {setting.name: _folded(setting.name).rpartition(".")[2] for setting in settings}
    inside = [each for each in last if _folded(each).rpartition(".")[0] == group]

    def similar(among: Sequence[str]) -> list[str]:
        close = difflib.get_close_matches(name, [last[each] for each in among], n=1, cutoff=_SIMILAR)
        return [each for each in among if last[each] in close]

    words = name.replace("_", " ")
    found = (
        [each for each in inside if last[each] == name]
        or [each for each in last if last[each] == name]
        or similar(inside)
        or similar(list(last))
        or [setting.name for setting in settings if re.match(rf"{re.escape(words)}\b", setting.meaning.lower())]
    )
    return sorted(found, key=lambda each: each.count("."))[:4]


def meanings(schema: type) -> dict[str, str]:
    """Return the meaning of every field of a dataclass that has one, each on one line; own texts before inherited."""
    found: dict[str, str] = {}
    for each in reversed(schema.__mro__):
        if dataclasses.is_dataclass(each):
            found |= _from_docstring(each) | _from_source(each)
    return found


def summary(schema: type) -> str:
    """Return the first line of a dataclass's docstring."""
    return (inspect.getdoc(schema) or "").partition("\n")[0]


def _from_docstring(schema: type) -> dict[str, str]:
    """Return the entries under `Attributes:`; an entry for several names (`start, stop: ...`) counts for each."""
    text = inspect.cleandoc(schema.__dict__.get("__doc__") or "")
    section = re.split(r"^Attributes.*:\n", text, maxsplit=1, flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in "".join(section).splitlines():
        if line and not line.startswith("    "):
            break
        if entry := _ENTRY.match(line):
            names, line = entry[1].split(", "), line[entry.end() :]
            found |= dict.fromkeys(names, "")
        for name in names:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _from_source(schema: type) -> dict[str, str]:
    """Return the texts that follow fields; none if the source cannot be read."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)):
            continue
        if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
            found[field.target.id] = " ".join(text.value.value.split())
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _choices(kind: Any) -> tuple[str, ...]:
    """Return the values of a literal type, alone or in an optional one."""
    for member in (kind, *get_args(kind)):
        if get_origin(member) is Literal:
            return tuple(map(str, get_args(member)))
    return ()


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")
