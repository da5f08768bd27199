"""Folders of files of sentence pairs, two columns of tab-separated text: Tatoeba's test sets, GATITOS, the user's own.

A file is called after its columns, `<code>-<code>.tsv` or `<code>_<code>.tsv`, and may be compressed (`.gz`, `.bz2`,
`.xz`): `deu-eng.tsv.gz`, `en_lij.tsv.gz`. It has no header; more columns are left alone, and so are other files, and
languages that FLORES-200 does not have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from data_builders.benchmarks.language_codes import known_code
from data_builders.errors import UserError
from data_builders.files import read_lines, sha256_file
from data_builders.ntl.corpus import Block, Corpus, block_rows, clean

_NAME = re.compile(
    r"(?P<first>[A-Za-z]+(?:_[A-Z][a-z]{3})?)[-_](?P<second>[A-Za-z]+(?:_[A-Z][a-z]{3})?)\.tsv(\.(gz|bz2|xz))?"
)


def read_pairs(folder: Path, languages: Collection[str]) -> list[Corpus]:
    """Return one corpus for each file of pairs; of these languages, or of all where none is named.

    Raises:
        UserError: a file cannot be read, is no UTF-8, holds no pair, or a line of it has one column only.
    """
    corpora = []
    for path in sorted(folder.glob("*.tsv*")):
        codes = _codes(path)
        if codes and (not languages or set(codes) <= set(languages)):
            rows = sum(1 for _ in _pairs(path))
            if not rows:
                raise UserError(f"{path}: holds no pair; get the file again, or leave its language out")
            corpora.append(_corpus(f"{folder.name}/{path.name.partition('.')[0]}", path, codes, rows))
    return corpora


def holds_pairs(folder: Path) -> bool:
    """Tell whether a folder has a file of pairs of languages that FLORES-200 has."""
    return any(_codes(path) for path in folder.glob("*.tsv*"))


def _codes(path: Path) -> tuple[str, str] | None:
    """Return the languages of the columns; None where the file's name says none."""
    if not (found := _NAME.fullmatch(path.name)) or not path.is_file():
        return None
    first, second = known_code(found["first"]), known_code(found["second"])
    return (first, second) if first and second and first != second else None


def _corpus(name: str, path: Path, codes: tuple[str, str], num_rows: int) -> Corpus:
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
