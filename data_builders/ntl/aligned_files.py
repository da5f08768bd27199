"""Folders of line-aligned text files, one per language: NLLB-Seed, NTREX, Moses and OPUS releases, or the user's own.

A file is called `<code>` or `<name>.<code>`, optionally with `.txt` and a compression suffix (`.gz`, `.bz2`, `.xz`):
`lij_Latn.gz`, `newstest2019-ref.deu.txt.gz`, `train.fr`. Files with the same name in one folder are aligned line by
line; blank lines count. Other files, and languages that FLORES-200 does not have, are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_builders.benchmarks.languages import ENGLISH, known_code
from data_builders.errors import UserError
from data_builders.files import read_lines, sha256_file
from data_builders.ntl.corpus import Block, Corpus, block_rows, clean, require_languages

_END = re.compile(r"(\.txt)?(\.(gz|bz2|xz))?$")


def read_aligned(folder: Path, languages: Collection[str]) -> list[Corpus]:
    """Return one corpus for each group of aligned files, with these languages (empty: all).

    Raises:
        UserError: files cannot be read, are not UTF-8, have no text, or differ in their number of lines.
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
    """Return a corpus of one language for each file of these languages (empty: all); files need not be aligned.

    Raises:
        UserError: files cannot be read, are not UTF-8, or have no text.
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
    """Return the number of lines of a file; raises UserError if it is not UTF-8 or has no text."""
    lines, has_text = 0, False
    for line in read_lines(path):
        lines += 1
        has_text = has_text or bool(line.strip("\ufeff \t\r") and not line.isspace())
    if not has_text:
        raise UserError(f"{path}: holds no text; get the file again, or leave its language out")
    return lines


def _groups(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the files by group (their folder, and the file name before the code) and language."""
    groups: dict[str, dict[str, Path]] = {}
    for path in sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()):
        stem, _, last = _END.sub("", path.name).rpartition(".")
        code = known_code(last)
        if code is None:
            continue
        place = [] if path.parent == folder else [path.parent.name]
        stem = stem.removesuffix("-ref").removesuffix("-src")  # NTREX: source and references are one text
        group = groups.setdefault("/".join([folder.name, *place, *filter(None, [stem])]), {})
        if code in group:
            raise UserError(f"{folder}: {group[code].name} and {path.name} are both {code}; remove one of them")
        group[code] = path
    return groups


def _corpus(name: str, files: dict[str, Path], num_rows: int) -> Corpus:
    def blocks() -> Iterator[Block]:
        texts = {code: read_lines(path) for code, path in files.items()}
        size = block_rows(len(files))
        while True:
            # A byte order mark can begin any line of a file that was concatenated from others.
            block = {
                code: [clean(line.removeprefix("\ufeff")) for line in islice(lines, size)]
                for code, lines in texts.items()
            }
            if not any(block.values()):
                return
            yield block

    hashes = {f"{name}: {path.name}": sha256_file(path) for path in files.values()}
    return Corpus(name, tuple(files), hashes, blocks, num_rows)


def _require_aligned(files: dict[str, Path], counts: dict[str, int]) -> None:
    """Raise UserError if files differ in their number of lines; it names the line from which they look misaligned."""
    first = ENGLISH if ENGLISH in files else next(iter(files))
    for code, count in counts.items():
        if count != counts[first]:
            line = suspicious_line(_lengths(files[first]), _lengths(files[code]))
            raise UserError(
                f"{files[code]} has {count} lines and {files[first].name} has {counts[first]}, so they are not aligned;"
                f" lengths stop to agree near line {line}: look there, or get the files again"
            )


def suspicious_line(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> int:
    """Return the line, from 1, at which two files (given as the bytes of each line) most likely become misaligned.

    The surplus lines of the longer file are assumed to be in one place: where the lengths agree best unshifted before
    it, and shifted by the surplus after it.
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
    return np.fromiter((len(line.encode()) for line in read_lines(path)), np.float64)
