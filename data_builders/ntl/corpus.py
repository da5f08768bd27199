"""A corpus: sentences of one or more languages, aligned row by row, and read in blocks to bound memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_builders.errors import UserError

# Maximum sentences of a block, over all its languages.
BLOCK_SENTENCES = 16_384

# Columns of equal length by language; an empty string: the row has no sentence in that language.
Block = dict[str, list[str]]


@dataclass(frozen=True)
class Corpus:
    """Aligned sentences, or text of one language.

    Attributes:
        name: the first part of the ids of its rows.
        languages: codes of FLORES-200, in column order.
        files: sha256 of each file by name (or the fingerprint of a dataset's rows).
        read: yields the blocks, at every call from the first row.
        num_rows: number of aligned rows.
    """

    name: str
    languages: tuple[str, ...]
    files: dict[str, str]
    read: Callable[[], Iterator[Block]] = field(repr=False)
    num_rows: int

    def blocks(self, max_rows: int | None = None) -> Iterator[Block]:
        """Yield the blocks of the first `max_rows` rows (None: of all)."""
        left = self.num_rows if max_rows is None else max_rows
        for block in self.read():
            if left <= 0:
                return
            rows = len(next(iter(block.values())))
            yield block if rows <= left else {code: column[:left] for code, column in block.items()}
            left -= rows


def block_rows(num_languages: int) -> int:
    """Return the number of rows in a block of `num_languages` languages."""
    return max(64, BLOCK_SENTENCES // num_languages)


def clean(sentence: str) -> str:
    """Return a sentence on one line, stripped, with single spaces."""
    return " ".join(sentence.split())


def require_languages(path: Path | str, found: list[str], what: str) -> None:
    """Raise UserError if a corpus has no language of FLORES-200."""
    if not found:
        raise UserError(f"{path}: holds no {what} of a language of FLORES-200; see docs/ntl-data.md for the layouts")
