"""Folders of line-aligned text files, one a language: NLLB-Seed, NTREX, Moses and OPUS releases, or the user's own.

A file is called `<code>`, `<name>.<code>`, each with `.txt` after it or not, and gzipped (`.gz`) or not: `lij_Latn.gz`,
`newstest2019-ref.deu.txt.gz`, `train.fr`. Files of one name, in one folder, are aligned line by line. Other files are
left alone, and so are languages that FLORES-200 does not have.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from data_builders.corpus import Block, Corpus, block_rows, clean, require_languages
from data_builders.errors import DataError
from data_builders.flores_languages import ENGLISH
from data_builders.language_codes import known_code
from data_builders.manifest import sha256_file

_CHUNK_BYTES = 1 << 20


def read_aligned(folder: Path, languages: Collection[str]) -> list[Corpus]:
    """Return one corpus for each group of aligned files; of these languages, or of all where none is named.

    Raises:
        DataError: files cannot be read, are no UTF-8, are empty, or differ in their number of lines.
    """
    groups = _groups(folder)
    require_languages(folder, [code for group in groups.values() for code in group], "file")
    corpora = []
    for name, group in groups.items():
        chosen = {code: path for code, path in group.items() if not languages or code in languages}
        if not chosen:
            continue
        counts = {code: count_lines(path) for code, path in chosen.items()}
        _require_aligned(chosen, counts)
        corpora.append(_corpus(name, chosen, next(iter(counts.values()))))
    return corpora


def read_texts(folder: Path, languages: Collection[str]) -> list[Corpus]:
    """Return a corpus of one language for each file of a folder whose files need not be aligned.

    Raises:
        DataError: files cannot be read, are no UTF-8, or are empty.
    """
    groups = _groups(folder)
    require_languages(folder, [code for group in groups.values() for code in group], "file")
    return [
        _corpus(f"{name}/{code}", {code: path}, count_lines(path))
        for name, group in groups.items()
        for code, path in group.items()
        if not languages or code in languages
    ]


def count_lines(path: Path) -> int:
    """Return the number of lines of a file; raises DataError where it is no UTF-8 text, or has none in it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, has_text, chunk = 0, False, b""
    with _opened(path) as stream:
        while piece := _read(path, stream):
            chunk = piece
            try:
                has_text = not decoder.decode(chunk).isspace() or has_text
            except UnicodeDecodeError as error:
                # What the decoder kept from the chunk before has no line end, so lines of this one are counted whole.
                line = lines + error.object[: error.start].count(b"\n") + 1
                raise _no_utf8(path, line, error) from None
            lines += chunk.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _no_utf8(path, lines + 1, error) from None
    if not has_text:
        raise DataError(f"{path}: holds no text; get the file again, or leave its language out")
    return lines + (not chunk.endswith(b"\n"))


def _no_utf8(path: Path, line: int, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{path}: line {line} is no UTF-8 ({error.reason}); convert the file, or get it again")


def _groups(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the files by name (folder of the files, and what stands before the code) and language."""
    groups: dict[str, dict[str, Path]] = {}
    for path in sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()):
        stem, _, last = path.name.removesuffix(".gz").removesuffix(".txt").rpartition(".")
        code = known_code(last)
        if code is None:
            continue
        place = [] if path.parent == folder else [path.parent.name]
        stem = stem.removesuffix("-ref").removesuffix("-src")  # NTREX: source and references are one text
        group = groups.setdefault("/".join([folder.name, *place, *filter(None, [stem])]), {})
        if code in group:
            raise DataError(f"{folder}: {group[code].name} and {path.name} are both {code}; remove one of them")
        group[code] = path
    return groups


def _corpus(name: str, files: dict[str, Path], num_rows: int) -> Corpus:
    def blocks() -> Iterator[Block]:
        streams = {code: _opened(path) for code, path in files.items()}
        try:
            size = block_rows(len(files))
            while True:
                block = {
                    code: [clean(_text(line)) for line in islice(stream, size)] for code, stream in streams.items()
                }
                if not any(block.values()):
                    return
                yield block
        finally:
            for stream in streams.values():
                stream.close()

    hashes = {f"{name}: {path.name}": sha256_file(path) for path in files.values()}
    return Corpus(name, tuple(files), hashes, blocks, num_rows)


def _text(line: bytes) -> str:
    """Decode a line, without the mark that some editors write at the beginning of a file."""
    return line.decode().removeprefix("\ufeff")


def _require_aligned(files: dict[str, Path], counts: dict[str, int]) -> None:
    """Raise DataError, with the line from which lengths stop to agree, where one file has more lines than another."""
    first = ENGLISH if ENGLISH in files else next(iter(files))
    for code, count in counts.items():
        if count != counts[first]:
            line = suspicious_line(_lengths(files[first]), _lengths(files[code]))
            raise DataError(
                f"{files[code]} has {count} lines and {files[first].name} has {counts[first]}, so they are not aligned;"
                f" lengths stop to agree near line {line}: look there, or get the files again"
            )


def suspicious_line(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> int:
    """Return the line, from 1, from which on two files (bytes of each line) are most likely out of step.

    The lines that the longer file has more are taken to stand in one place: the one where lengths agree best as they
    are before it, and moved by so many lines after it.
    """
    short, long = (np.log1p(each) for each in sorted((ours, theirs), key=len))
    if not len(short):
        return 1
    usual = np.median(long) - np.median(short)
    before = np.abs(long[: len(short)] - short - usual)
    after = np.abs(long[len(long) - len(short) :] - short - usual)
    costs = np.concatenate([[0.0], np.cumsum(before - after)])
    return int(np.argmin(costs)) + 1


def _lengths(path: Path) -> NDArray[np.float64]:
    with _opened(path) as stream:
        return np.fromiter(map(len, stream), np.float64)


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.endswith(".gz") else path.open("rb")


def _read(path: Path, stream: IO[bytes]) -> bytes:
    try:
        return stream.read(_CHUNK_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: cannot be read ({problem}); get the file again") from None
