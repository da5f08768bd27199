"""Turn a block of aligned sentences into rows of text and translation that do not overlap with the test set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_builders.hashing import GOLDEN, Hashes, mixed
from data_builders.ntl.corpus import Block
from data_builders.ntl.overlap import EXACT, NEAR, OverlapIndex, marks, normalise
from data_builders.ntl.translation_text import answer, question, worked_pair

# Mixing steps of the key that decides a row's split.
_STEPS = ((29, 0xBF58476D1CE4E5B9),)
SPLITS = ("train", "validation", "composition", "test")
_COLUMNS = ("id", "prompt", "completion", "kind", "source", "target")
# `marks` are the hashes of all sentences of a row, its own first; they keep sentences of other splits out of the
# training files. `row` is the index of the aligned row in its block.
SHARD_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in _COLUMNS), ("row", pa.int32()), ("marks", pa.list_(pa.uint64()))]
)


@dataclass(frozen=True)
class RowPlan:
    """Which rows to make of a block; the same for every block of a corpus."""

    corpus: str
    text_languages: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    test_pairs: tuple[tuple[str, str], ...]
    pivots: tuple[str, ...]
    max_shots: int
    max_characters: int
    validation_fraction: float
    composition_unseen: float
    test_fraction: float
    seed: int


@dataclass
class Counts:
    """Counts of a block's sentences, by language in the dictionaries."""

    rows: int = 0
    sentences: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    too_long: dict[str, int] = field(default_factory=dict)
    exact: dict[str, int] = field(default_factory=dict)
    near: dict[str, int] = field(default_factory=dict)
    removed_rows: int = 0


@dataclass
class _Column:
    """The sentences of one language; only `kept` ones are used."""

    sentences: list[str]
    marks: Hashes
    kept: NDArray[np.bool_]
    is_missing: NDArray[np.bool_]


def make_rows(
    block: Block, first_row: int, plan: RowPlan, index: OverlapIndex | None, rng: np.random.Generator
) -> tuple[dict[str, pa.Table], Counts]:
    """Return the shuffled rows of each split, and the counts.

    Aligned sentences are translations of each other: if one overlaps with the test set, its whole row is left out.
    """
    columns, counts = _compare(block, plan.max_characters, index)
    split_of = _splits(columns, plan)
    tables = {}
    for number, split in enumerate(SPLITS):
        in_split = split_of == number
        if split == "test":
            rows = [*_translations(columns, in_split, first_row, replace(plan, pairs=plan.test_pairs), rng)]
        else:
            rows = [
                *_texts(columns, in_split, first_row, plan),
                *_translations(columns, in_split, first_row, plan, rng),
            ]
        table = pa.Table.from_arrays(
            [pa.array(values, kind.type) for values, kind in zip(_transposed(rows), SHARD_SCHEMA, strict=True)],
            schema=SHARD_SCHEMA,
        )
        tables[split] = table.take(pa.array(rng.permutation(len(rows))))
    return tables, counts


def _compare(block: Block, max_characters: int, index: OverlapIndex | None) -> tuple[dict[str, _Column], Counts]:
    counts = Counts(rows=len(next(iter(block.values()))))
    columns = {}
    is_overlapping = np.zeros(counts.rows, np.bool_)
    for code, sentences in block.items():
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        normalised = [normalise(sentence) for sentence in sentences]
        hashes = marks(normalised)
        # A line of punctuation only is no sentence.
        is_missing = ~np.fromiter(map(bool, normalised), np.bool_, len(sentences))
        is_long = ~is_missing & (lengths > max_characters)
        columns[code] = _Column(sentences, hashes, ~is_missing & ~is_long, is_missing)
        counts.sentences[code] = int((~is_missing).sum())
        counts.missing[code], counts.too_long[code] = int(is_missing.sum()), int(is_long.sum())
        if index is not None:
            found = index.find(normalised, hashes)
            counts.exact[code], counts.near[code] = int((found == EXACT).sum()), int((found == NEAR).sum())
            is_overlapping |= found > 0
    for column in columns.values():
        column.kept &= ~is_overlapping
    counts.removed_rows = int(is_overlapping.sum())
    return columns, counts


def _splits(columns: dict[str, _Column], plan: RowPlan) -> NDArray[np.int64]:
    """Return the index in SPLITS of each row, by a hash of the pivot's sentence: the same in every corpus with it."""
    key = np.zeros(len(next(iter(columns.values())).kept), np.uint64)
    for code in (*plan.pivots, *columns):
        if code in columns:
            key = np.where((key == 0) & ~columns[code].is_missing, columns[code].marks, key)
    validation, composition = plan.validation_fraction, plan.validation_fraction + plan.composition_unseen
    places = mixed((key ^ np.uint64(plan.seed)) * GOLDEN, _STEPS) >> np.uint64(11)
    shares = validation, composition, composition + plan.test_fraction
    is_validation, is_composition, is_test = (places < np.uint64(share * 2**53) for share in shares)
    return np.where(is_validation, 1, np.where(is_composition, 2, np.where(is_test, 3, 0)))


_Row = tuple[str, str, str, str, str, str, int, list[int]]


def _texts(columns: dict[str, _Column], in_split: NDArray[np.bool_], first_row: int, plan: RowPlan) -> Iterator[_Row]:
    for code in plan.text_languages:
        if (column := columns.get(code)) is None:
            continue
        for row in np.flatnonzero(column.kept & in_split).tolist():
            name = f"{plan.corpus}/{first_row + row}/{code}"
            yield name, "", column.sentences[row], "text", code, code, row, [int(column.marks[row])]


def _translations(
    columns: dict[str, _Column],
    in_split: NDArray[np.bool_],
    first_row: int,
    plan: RowPlan,
    rng: np.random.Generator,
) -> Iterator[_Row]:
    for source, target in plan.pairs:
        ours, theirs = columns[source], columns[target]
        rows = np.flatnonzero(ours.kept & theirs.kept & in_split)
        num_shots = rng.integers(0, plan.max_shots + 1, len(rows))
        drawn = rows[rng.integers(0, max(1, len(rows)), (len(rows), plan.max_shots))] if len(rows) else rows
        for row, shots, count in zip(rows.tolist(), drawn.tolist(), num_shots.tolist(), strict=True):
            worked = [shot for shot in dict.fromkeys(shots[:count]) if shot != row]
            before = "".join(worked_pair(source, target, ours.sentences[s], theirs.sentences[s]) for s in worked)
            yield (
                f"{plan.corpus}/{first_row + row}/{source}-{target}",
                before + question(source, target, ours.sentences[row]),
                answer(theirs.sentences[row]),
                "translation",
                source,
                target,
                row,
                [int(side.marks[each]) for each in (row, *worked) for side in (ours, theirs)],
            )


def _transposed(rows: Sequence[_Row]) -> list[list[object]]:
    return [list(values) for values in zip(*rows, strict=True)] if rows else [[] for _ in SHARD_SCHEMA]
