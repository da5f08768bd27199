"""A corpus: sentences of several languages, aligned row by row, that are read block by block in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_builders.errors import UserError

# Sentences of all languages together that a block holds at most.
BLOCK_SENTENCES = 16_384

# Columns of equal length by language; an empty sentence: the row has none in that language.
Block = dict[str, list[str]]


@dataclass(frozen=True)
class Corpus:
    """Aligned sentences, or text of one language.

    Attributes:
        name: what its rows are called after.
        languages: codes of FLORES-200, in the order of its columns.
        files: sha256 by the name of each file (or of the rows of a dataset).
        read: yields its blocks, each time from the first row on.
        num_rows: aligned rows.
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
    """Return how many rows a block of so many languages has."""
    return max(64, BLOCK_SENTENCES // num_languages)


def clean(sentence: str) -> str:
    """Return a sentence on one line, with single spaces and none around it."""
    return " ".join(sentence.split())


def require_languages(path: Path | str, found: list[str], what: str) -> None:
    """Raise UserError where a corpus holds no language that has a code of FLORES-200."""
    if not found:
        raise UserError(f"{path}: holds no {what} of a language of FLORES-200; see docs/ntl-data.md for the layouts")
