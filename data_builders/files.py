"""Files as users have them, read in one way everywhere: regular files, unpacked, in UTF-8, line by line.

What holds for every reader of text, JSON, CSV and Parquet in this project:

- Only regular files are opened; a FIFO, a device, a socket or a folder is refused instead of waited for.
- Whether a file is compressed (gzip, bzip2, xz) is told by its first bytes, whatever its name.
- Text is UTF-8; a byte order mark at its beginning is dropped, UTF-16 and UTF-32 are refused.
- A line ends with LF or CRLF. Other separators that Unicode has (U+2028, U+0085, a lone CR) are part of a line.
- NUL characters, lines above 64 MiB and JSON nested more than 100 levels deep are refused.
- Half of a surrogate pair in a JSON escape is no character: it is read as U+FFFD, which is said once a file.

All that is refused is a DataError in one line: `FILE:LINE: what is wrong; what to do`.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import logging
import lzma
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from data_builders.errors import DataError

MAX_LINE_BYTES = 64 * 1024**2
MAX_DEPTH = 100
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_CHUNK_BYTES = 1 << 20
_READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_COMPRESSED = (
    (re.compile(rb"\x1f\x8b\x08"), gzip.open),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.open),
    (re.compile(rb"\xfd7zXZ\x00"), lzma.open),
)
_NOT_READ = {b"\x28\xb5\x2f\xfd": "Zstandard", b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive"}
_OTHER_UNICODE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LOGGER = logging.getLogger(__name__)


def require_file(path: Path) -> None:
    """Raise DataError unless `path` is a regular file, or a link to one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened ({_reason(error)}); check the path") from None
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise DataError(f"{path}: is {kind}, not a file; name a regular file")


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked if it is compressed; what fails in the block is a DataError too."""
    require_file(path)
    with reading(path):
        with path.open("rb") as raw:
            head = raw.read(16)
        opened = next((opener for pattern, opener in _COMPRESSED if pattern.match(head)), open)
        for start, name in _NOT_READ.items():
            if head.startswith(start):
                raise DataError(f"{path}: is {name}, which is not read here; unpack it")
        with cast(IO[bytes], opened(path, "rb")) as stream:
            yield stream


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what reading a file can fail with in the block (the disk, a torn archive) into a DataError."""
    try:
        yield
    except _READ_ERRORS as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)}); get the file again") from None


def read_lines(path: Path, keep_ends: bool = False) -> Iterator[str]:
    """Yield the lines of a text, without their ends unless they are to be kept; raises DataError as the module says."""
    for block in _blocks(path):
        yield from _lines(block, keep_ends)


def lines_of(content: bytes, where: str) -> list[str]:
    """Return the lines of a text that has been read already, as `read_lines` does."""
    return [line for block in _blocks_of(io.BytesIO(content), where) for line in _lines(block)]


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked; raises DataError where it cannot be read."""
    with open_binary(path) as stream:
        return stream.read()


def read_text(path: Path) -> str:
    """Return a whole text, line ends as they are; raises DataError as the module says."""
    return "".join(_blocks(path))


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; raises DataError for one that holds none."""
    return _reported(path, parse_json(read_text(path), str(path)))


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
    lines = (line for block in _blocks(path, skip_torn) for line in _lines(block))
    for number, line in enumerate(lines, start=1):
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
        DataError: it is no JSON, is nested too deeply, or has a number of too many digits.
    """
    text = text.removeprefix("\ufeff")
    if _is_deep(text):
        raise DataError(f"{where}: its JSON is nested more than {MAX_DEPTH} levels deep; correct the file")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if "\n" in text.rstrip("\n"):
            where = f"{where}:{error.lineno}"
        found = f"{error.msg}, column {error.colno}"
        raise DataError(f"{where}: is no JSON ({found}); correct the file, or get it again") from None
    except ValueError:  # more digits than Python reads
        raise DataError(f"{where}: a number in it is too long to be read; correct the file") from None
    return _whole(value) if _ESCAPED_SURROGATE.search(text) else (value, 0)


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes, as they are; raises DataError where they cannot be read."""
    require_file(path)
    with reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _blocks(path: Path, skip_torn: bool = False) -> Iterator[str]:
    """Yield a text in pieces of whole lines."""
    with open_binary(path) as stream:
        yield from _blocks_of(stream, str(path), skip_torn)


def _blocks_of(stream: IO[bytes], where: str, skip_torn: bool = False) -> Iterator[str]:
    number, rest = 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        if not number and not rest:
            if chunk.startswith(_OTHER_UNICODE):
                raise DataError(f"{where}:1: is UTF-16 or UTF-32; convert the file to UTF-8")
            chunk = chunk.removeprefix(_BOM)
        lines, end, rest = (rest + chunk).rpartition(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{where}:{number + 1}: a line of more than {MAX_LINE_BYTES >> 20} MiB; split it")
        if end:
            yield _decoded(where, lines + end, number)
            number += lines.count(b"\n") + 1
    if rest and not skip_torn:
        yield _decoded(where, rest, number)


def _lines(block: str, keep_ends: bool = False) -> Iterable[str]:
    lines = block.removesuffix("\n").split("\n")
    if keep_ends:
        last = f"{lines[-1]}\n" if block.endswith("\n") else lines[-1]
        return [*(f"{line}\n" for line in lines[:-1]), last]
    return [line.removesuffix("\r") for line in lines] if "\r" in block else lines


def _decoded(where: str, block: bytes, lines_before: int) -> str:
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        line = lines_before + block.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}:{line}: is no UTF-8 ({error.reason}); convert the file, or get it again") from None
    if (place := text.find("\0")) >= 0:
        line = lines_before + text.count("\n", 0, place) + 1
        raise DataError(f"{where}:{line}: holds a NUL character; convert the file to UTF-8, or get it again")
    return text


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


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
