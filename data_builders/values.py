"""Read and write JSON, JSON Lines and YAML by one set of rules.

JSON nested more than 100 levels deep is refused. A lone surrogate in a JSON escape is not a character: it is read as
U+FFFD, with one warning per file.
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
    """Return the value of a JSON file; raises UserError if it is not valid JSON."""
    return _reported(path, parse_json(read_text(path), str(path)))


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write `value` as indented JSON, atomically (see `atomic_path`); raises ValueError for NaN and infinities."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable)


def is_json_list(path: Path) -> bool:
    """Tell from its first character whether a JSON file is one list; otherwise it is JSON Lines."""
    return next((line.lstrip("\ufeff \t\r") for line in read_lines(path) if line.strip()), "").startswith("[")


def numbered_json(path: Path, skip_torn: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) for each non-blank line of a JSON Lines file.

    If its first character is `[`, the file is a JSON list, and the numbers are positions in the list, from 1.

    Args:
        skip_torn: leave out a last line without a line end (a crash interrupted its writing); never read a JSON list.
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
    """Return a JSON value, and the number of lone surrogates replaced in it.

    Of duplicate keys the last one wins. NaN and infinities are accepted, as most programs write them.

    Args:
        where: the file, or `FILE:LINE` if `text` is one of its lines.

    Raises:
        UserError: `text` is not valid JSON, is nested too deeply, or has a number with too many digits.
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
    except ValueError:  # Python limits the digits of an integer
        raise UserError(f"{where}: a number in it is too long to be read; correct the file") from None
    return _whole(value) if _ESCAPED_SURROGATE.search(text) else (value, 0)


def read_yaml(path: Path, max_values: int = 100_000) -> Any:
    """Read a YAML file; its size with all aliases expanded is checked before they are expanded.

    Raises:
        UserError: it is missing, damaged or nested too deeply, an alias contains itself, or it has over `max_values`.
    """
    import yaml

    text = read_text(path)
    try:
        _check_values(yaml.parse(text, Loader=yaml.SafeLoader), path, max_values)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct the file") from error


def _check_values(events: Iterable[Any], path: Path, limit: int) -> None:
    """Raise UserError if a YAML file has too many values, with aliases expanded, or is nested too deeply."""
    import yaml

    # `open_at`: the anchor of each open collection, and the total at its start. `sizes`: values per anchor.
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
    """Tell whether JSON is nested more than MAX_DEPTH levels deep; Python's parser is recursive."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _BRACKET_OR_STRING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            return True
    return False


def _whole(value: Any) -> tuple[Any, int]:
    """Return a value with each lone surrogate replaced by U+FFFD, and the number of replacements."""
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
