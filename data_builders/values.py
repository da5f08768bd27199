"""Values in files: JSON, JSON lines and YAML, read and written in one way everywhere.

JSON nested more than 100 levels deep is refused. Half of a surrogate pair in a JSON escape is no character: it is read
as U+FFFD, which is said once a file.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_builders.errors import UserError
from data_builders.files import read_lines, read_text, write_text

MAX_DEPTH = 100
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LOGGER = logging.getLogger(__name__)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; raises UserError for one that holds none."""
    return _reported(path, parse_json(read_text(path), str(path)))


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write `value` as indented JSON, atomically (see `atomic_path`). Not-a-number is an error: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable)


def is_json_list(path: Path) -> bool:
    """Tell whether a file of JSON is one list, by its first character; else it has a value a line."""
    return next((line.lstrip("\ufeff \t\r") for line in read_lines(path) if line.strip()), "").startswith("[")


def numbered_json(path: Path, skip_torn: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield the values of a file of JSON lines (blank ones left out) with their lines, counted from 1.

    Where its first character is `[`, it is a JSON list instead, and the numbers are places in the list.

    Args:
        skip_torn: leave out a last line without an end, which whoever was writing it did not finish.
    """
    if not skip_torn and is_json_list(path):
        yield from enumerate(read_json(path), start=1)
        return
    replaced = 0
    for number, line in enumerate(read_lines(path, skip_torn=skip_torn), start=1):
        if not line.strip():
            continue
        value, count = parse_json(line, f"{path}:{number}")
        replaced += count
        yield number, value
    _report(path, replaced)


def parse_json(text: str, where: str) -> tuple[Any, int]:
    """Return a JSON value, and how many halves of surrogate pairs in it were replaced.

    Of keys that appear twice the last counts. NaN and infinities are read, as most programs write them.

    Args:
        where: the file, or `FILE:LINE` of a text that is one line of it.

    Raises:
        UserError: it is no JSON, is nested too deeply, or has a number of too many digits.
    """
    text = text.removeprefix("\ufeff")
    if _is_deep(text):
        raise UserError(f"{where}: its JSON is nested more than {MAX_DEPTH} levels deep; correct the file")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if "\n" in text.rstrip("\n"):
            where = f"{where}:{error.lineno}"
        found = f"{error.msg}, column {error.colno}"
        raise UserError(f"{where}: is no JSON ({found}); correct the file, or get it again") from None
    except ValueError:  # more digits than Python reads
        raise UserError(f"{where}: a number in it is too long to be read; correct the file") from None
    return _whole(value) if _ESCAPED_SURROGATE.search(text) else (value, 0)


def read_yaml(path: Path, max_values: int = 100_000) -> Any:
    """Read a YAML file, whose anchors and aliases are looked at before they are followed.

    Raises:
        UserError: it is missing or damaged, names itself, is nested too deeply, or has more values than that.
    """
    import yaml

    text = read_text(path)
    try:
        _check_values(yaml.parse(text, Loader=yaml.SafeLoader), path, max_values)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct the file") from error


def _check_values(events: Iterable[Any], path: Path, limit: int) -> None:
    """Raise UserError where the values of a YAML file, each alias written out, are too many or too deep."""
    import yaml

    # Where in the count each open list or group begins, and how many values an anchor stands for.
    total, open_at, sizes = 0, list[tuple[str | None, int]](), dict[str | None, int]()
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            open_at.append((event.anchor, total))
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserError(f"{path}:{event.start_mark.line + 1}: *{event.anchor} names itself; write it out")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_at.pop()
            sizes[anchor] = total - start
        if isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1
        if total > limit or len(open_at) > MAX_DEPTH:
            problem = f"more than {limit:,} values" if total > limit else f"more than {MAX_DEPTH} levels"
            raise UserError(f"{path}:{event.start_mark.line + 1}: {problem}, aliases written out; make it smaller")


def _is_deep(text: str) -> bool:
    """Tell whether lists and objects in JSON are nested too deeply for the parser, which is recursive."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _BRACKET_OR_STRING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            return True
    return False


def _whole(value: Any) -> tuple[Any, int]:
    """Return a value with U+FFFD for each half of a surrogate pair, and how many there were."""
    if isinstance(value, str):
        return _LONE_SURROGATE.subn(REPLACEMENT, value)
    if isinstance(value, list):
        parts = [_whole(item) for item in value]
        return [part for part, _ in parts], sum(count for _, count in parts)
    if isinstance(value, dict):
        pairs = [(_whole(key), _whole(item)) for key, item in value.items()]
        return {key[0]: item[0] for key, item in pairs}, sum(key[1] + item[1] for key, item in pairs)
    return value, 0


def _reported(path: Path, parsed: tuple[Any, int]) -> Any:
    value, replaced = parsed
    _report(path, replaced)
    return value


def _report(path: Path, replaced: int) -> None:
    if replaced:
        _LOGGER.warning("%s: %d halves of surrogate pairs in it are read as U+FFFD", path, replaced)
