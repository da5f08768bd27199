"""Read users' files by one set of rules, and write our own atomically.

Rules for every reader of text, JSON, CSV and Parquet in this project:

- Only regular files are opened; a FIFO, device, socket or folder is refused, since reading it could block.
- Compression (gzip, bzip2, xz, Zstandard) is detected from the first bytes, not from the file name.
- Text is UTF-8; a leading byte order mark is dropped, UTF-16 and UTF-32 are refused.
- Lines end with LF or CRLF. Other Unicode separators (U+2028, U+0085, a lone CR) stay part of the line.
- NUL characters and lines above 64 MiB are refused.

Every refusal is a one-line UserError: `FILE:LINE: what is wrong; what to do`.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from data_builders.errors import UserError

MAX_LINE_BYTES = 64 * 1024**2

_CHUNK_BYTES = 1 << 20
_READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _open_zstd(path: Path, mode: str) -> IO[bytes]:
    import pyarrow as pa

    return cast(IO[bytes], pa.CompressedInputStream(path, "zstd"))


_COMPRESSED = (
    (re.compile(rb"\x1f\x8b\x08"), gzip.open),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.open),
    (re.compile(rb"\xfd7zXZ\x00"), lzma.open),
    (re.compile(rb"\x28\xb5\x2f\xfd"), _open_zstd),
)
_NOT_READ = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive"}
_OTHER_UNICODE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_BOM = b"\xef\xbb\xbf"


def require_file(path: Path) -> None:
    """Raise UserError unless `path` is a regular file, or a link to one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder; check the path") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be opened ({_reason(error)}); check the path") from None
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise UserError(f"{path}: is {kind}, not a file; name a regular file")


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed; read errors inside the block become UserErrors too."""
    require_file(path)
    with reading(path):
        with path.open("rb") as raw:
            head = raw.read(16)
        opened = next((opener for pattern, opener in _COMPRESSED if pattern.match(head)), open)
        for start, name in _NOT_READ.items():
            if head.startswith(start):
                raise UserError(f"{path}: is {name}, which is not read here; unpack it")
        with cast(IO[bytes], opened(path, "rb")) as stream:
            yield stream


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn read errors in the block (a disk error, a truncated archive) into a UserError."""
    try:
        yield
    except _READ_ERRORS as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}); get the file again") from None


def read_lines(path: Path, keep_ends: bool = False, skip_torn: bool = False) -> Iterator[str]:
    """Yield the lines of a text file, without line ends unless `keep_ends`; raises UserError (see the module's rules).

    Args:
        skip_torn: leave out a last line without a line end: a crash interrupted its writing.
    """
    for block in _blocks(path, skip_torn):
        yield from _lines(block, keep_ends)


def lines_of(content: bytes, where: str) -> list[str]:
    """Return the lines of text content already in memory, as `read_lines` yields them; `where` names it in errors."""
    return [line for block in _blocks_of(io.BytesIO(content), where) for line in _lines(block)]


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, decompressed; raises UserError if it cannot be read."""
    with open_binary(path) as stream:
        return stream.read()


def read_text(path: Path) -> str:
    """Return a whole text file, line ends unchanged; raises UserError as `read_lines` does."""
    return "".join(_blocks(path))


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes, not decompressed; raises UserError if they cannot be read."""
    require_file(path)
    with reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(path: Path, files: Iterable[Path] | None = None) -> str:
    """Return the hex sha256 of a file, or of a folder: over the sorted names and checksums of its visible files.

    Args:
        files: only these files of the folder.
    """
    if not path.is_dir():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*") if files is None else files):
        relative = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            name = os.fsencode(relative.as_posix())  # any bytes but NUL and / can be a name
            digest.update(name + f"\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write; it replaces `path` when the block ends without an error.

    Readers see the old file or the new one, never a part, even after a crash. `durable=False` skips the fsync: still
    atomic for readers, and cheap for files that are rewritten often.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file as `atomic_path` does."""
    with atomic_path(path, durable) as temporary, temporary.open("xb") as stream:
        stream.write(content)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace a file as `atomic_path` does; lone surrogates (from undecodable file names) are written as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"), durable)


def share_as_umask_says(path: Path) -> None:
    """Give a file, or every file below a folder, the umask's mode for new files: some libraries write them as 0600."""
    mode = 0o666 & ~_umask()
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def sync_tree(folder: Path) -> None:
    """Fsync a folder and everything below it."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def sync_folder(folder: Path) -> None:
    """Fsync a folder's entries, so that files created, renamed or removed in it survive a crash."""
    _sync(folder)


def _blocks(path: Path, skip_torn: bool = False) -> Iterator[str]:
    """Yield a text file in pieces of whole lines."""
    with open_binary(path) as stream:
        yield from _blocks_of(stream, str(path), skip_torn)


def _blocks_of(stream: IO[bytes], where: str, skip_torn: bool = False) -> Iterator[str]:
    number, rest = 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        if not number and not rest:
            if chunk.startswith(_OTHER_UNICODE):
                raise UserError(f"{where}:1: is UTF-16 or UTF-32; convert the file to UTF-8")
            chunk = chunk.removeprefix(_BOM)
        lines, end, rest = (rest + chunk).rpartition(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise UserError(f"{where}:{number + 1}: a line of more than {MAX_LINE_BYTES >> 20} MiB; split it")
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
        raise UserError(f"{where}:{line}: is no UTF-8 ({error.reason}); convert the file, or get it again") from None
    if (place := text.find("\0")) >= 0:
        line = lines_before + text.count("\n", 0, place) + 1
        raise UserError(f"{where}:{line}: holds a NUL character; convert the file to UTF-8, or get it again")
    return text


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
