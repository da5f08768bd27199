"""NusaX-MT: aligned sentences of languages of Indonesia and English, a CSV file a split and a column a language.

`train.csv` and `valid.csv` are read; `test.csv` stays what it is for. Madurese, Ngaju and Toba Batak are left out, as
FLORES-200 has no code for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from data_builders.benchmarks.language_codes import NUSAX_NAMES
from data_builders.errors import UserError
from data_builders.files import sha256_file
from data_builders.ntl.corpus import Block, Corpus, block_rows, clean, require_languages
from data_builders.rows import csv_rows

FILES = ("train.csv", "valid.csv")


def is_nusax(folder: Path) -> bool:
    """Tell whether a folder holds NusaX: a `train.csv` with a column `english` and one of its other languages."""
    return (folder / FILES[0]).is_file() and {"english", "acehnese"} <= set(_header(folder / FILES[0]))


def read_nusax(folder: Path, languages: Collection[str]) -> list[Corpus]:
    """Return one corpus for each file; of these languages, or of all where none is named.

    Raises:
        UserError: a file cannot be read, or a row has other columns than its header.
    """
    corpora = []
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        columns = {NUSAX_NAMES[column]: column for column in _header(path) if column in NUSAX_NAMES}
        require_languages(path, list(columns), "column")
        if chosen := {code: column for code, column in columns.items() if not languages or code in languages}:
            rows = sum(1 for _ in _rows(path))
            corpora.append(_corpus(f"{folder.name}/{path.stem}", path, chosen, rows))
    return corpora


def _corpus(name: str, path: Path, columns: dict[str, str], num_rows: int) -> Corpus:
    def blocks() -> Iterator[Block]:
        block: Block = {code: [] for code in columns}
        for number, row in enumerate(_rows(path), start=1):
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


def _rows(path: Path) -> Iterator[dict[str, str]]:
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}:{line}: has {len(row)} columns, and the header {len(header)}; correct it")
        yield dict(zip(header, row, strict=True))
