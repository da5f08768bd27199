"""Corpora in tables with one column per language: NusaX-MT, and files of sentence pairs.

NusaX-MT has aligned sentences of languages of Indonesia and English, one CSV file per split. `train.csv` and
`valid.csv` are read; `test.csv` is left for testing. Madurese, Ngaju and Toba Batak are left out, as FLORES-200 has no
code for them.

Files of pairs (Tatoeba's test sets, GATITOS, the user's own) are tab-separated text without a header, named after
their two columns, `<code>-<code>.tsv` or `<code>_<code>.tsv`, and may be compressed (`.gz`, `.bz2`, `.xz`):
`deu-eng.tsv.gz`, `en_lij.tsv.gz`. Further columns, other files, and languages missing in FLORES-200 are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from data_builders.benchmarks.languages import known_code
from data_builders.errors import UserError
from data_builders.files import read_lines, sha256_file
from data_builders.ntl.corpus import Block, Corpus, block_rows, clean, require_languages
from data_builders.row_files import csv_rows

_NUSAX_FILES = ("train.csv", "valid.csv")
# Column names of NusaX; FLORES-200 has no Madurese, Ngaju and Toba Batak.
_NUSAX_NAMES = {
    "acehnese": "ace_Latn",
    "balinese": "ban_Latn",
    "banjarese": "bjn_Latn",
    "buginese": "bug_Latn",
    "english": "eng_Latn",
    "indonesian": "ind_Latn",
    "javanese": "jav_Latn",
    "minangkabau": "min_Latn",
    "sundanese": "sun_Latn",
}
_PAIR_FILE = re.compile(
    r"(?P<first>[A-Za-z]+(?:_[A-Z][a-z]{3})?)[-_](?P<second>[A-Za-z]+(?:_[A-Z][a-z]{3})?)\.tsv(\.(gz|bz2|xz))?"
)


def is_nusax(folder: Path) -> bool:
    """Tell whether a folder holds NusaX: a `train.csv` with the columns `english` and `acehnese`."""
    return (folder / _NUSAX_FILES[0]).is_file() and {"english", "acehnese"} <= set(_header(folder / _NUSAX_FILES[0]))


def read_nusax(folder: Path, languages: Collection[str]) -> list[Corpus]:
    """Return one corpus for each file, with these languages (empty: all).

    Raises:
        UserError: a file cannot be read, or a row differs from the header in its number of columns.
    """
    corpora = []
    for name in _NUSAX_FILES:
        path = folder / name
        if not path.is_file():
            continue
        columns = {_NUSAX_NAMES[column]: column for column in _header(path) if column in _NUSAX_NAMES}
        require_languages(path, list(columns), "column")
        if chosen := {code: column for code, column in columns.items() if not languages or code in languages}:
            rows = sum(1 for _ in _nusax_rows(path))
            corpora.append(_nusax_corpus(f"{folder.name}/{path.stem}", path, chosen, rows))
    return corpora


def _nusax_corpus(name: str, path: Path, columns: dict[str, str], num_rows: int) -> Corpus:
    def blocks() -> Iterator[Block]:
        block: Block = {code: [] for code in columns}
        for number, row in enumerate(_nusax_rows(path), start=1):
            for code, column in columns.items():
                block[code].append(clean(row[column]))
            if number % block_rows(len(columns)) == 0:
                yield block
                block = {code: [] for code in columns}
        if any(block.values()):
            yield block

    return Corpus(name, tuple(columns), {f"{name}: {path.name}": sha256_file(path)}, blocks, num_rows)


def _header(path: Path) -> list[str]:
    return next(csv_rows(path), (1, []))[1]


def _nusax_rows(path: Path) -> Iterator[dict[str, str]]:
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}:{line}: has {len(row)} columns, and the header {len(header)}; correct it")
        yield dict(zip(header, row, strict=True))


def read_pairs(folder: Path, languages: Collection[str]) -> list[Corpus]:
    """Return one corpus for each file of pairs whose two languages are among these (empty: all).

    Raises:
        UserError: a file cannot be read, is not UTF-8, holds no pair, or has a line with only one column.
    """
    corpora = []
    for path in sorted(folder.glob("*.tsv*")):
        codes = _codes(path)
        if codes and (not languages or set(codes) <= set(languages)):
            rows = sum(1 for _ in _pairs(path))
            if not rows:
                raise UserError(f"{path}: holds no pair; get the file again, or leave its language out")
            corpora.append(_pair_corpus(f"{folder.name}/{path.name.partition('.')[0]}", path, codes, rows))
    return corpora


def holds_pairs(folder: Path) -> bool:
    """Tell whether a folder has a file of pairs of two FLORES-200 languages."""
    return any(_codes(path) for path in folder.glob("*.tsv*"))


def _codes(path: Path) -> tuple[str, str] | None:
    """Return the languages of the columns, or None if the file's name does not give two."""
    if not (found := _PAIR_FILE.fullmatch(path.name)) or not path.is_file():
        return None
    first, second = known_code(found["first"]), known_code(found["second"])
    return (first, second) if first and second and first != second else None


def _pair_corpus(name: str, path: Path, codes: tuple[str, str], num_rows: int) -> Corpus:
    def blocks() -> Iterator[Block]:
        pairs = _pairs(path)
        while part := list(islice(pairs, block_rows(2))):
            yield {code: [clean(pair[column]) for pair in part] for column, code in enumerate(codes)}

    return Corpus(name, codes, {f"{name}: {path.name}": sha256_file(path)}, blocks, num_rows)


def _pairs(path: Path) -> Iterator[list[str]]:
    for number, line in enumerate(read_lines(path), start=1):
        line = line.removeprefix("\ufeff")
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) < 2:
            raise UserError(f"{path}:{number}: has one column; a pair is two sentences with a tab between them")
        yield columns[:2]
