"""Training files of the key-value task: the kinds and the order of their rows, and their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_builders.kv.expressions import Expressions, evaluate
from data_builders.kv.keys import KeyTable
from data_builders.kv.render import Renderer, render_kind, template_fields
from data_builders.kv.text import OPEN_ENDED

CHUNK_ROWS = 1 << 17

TRAINING_SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        pa.field(
            "meta",
            pa.struct(
                [
                    ("num_operands", pa.int8()),
                    ("num_held_in", pa.int8()),
                    ("kind", pa.string()),
                    ("open_ended", pa.bool_()),
                ]
            ),
            nullable=False,
        ),
    ]
)


@dataclass
class ResultStatistics:
    """Smallest and largest result, and the number of results by digit count."""

    smallest: int | None = None
    largest: int | None = None
    digits: Counter[int] = field(default_factory=Counter)

    def add(self, results: NDArray[np.int64] | NDArray[np.object_]) -> None:
        """Add the results of some rows."""
        low, high = int(results.min()), int(results.max())
        self.smallest = low if self.smallest is None else min(self.smallest, low)
        self.largest = high if self.largest is None else max(self.largest, high)
        if results.dtype == object:
            self.digits.update(len(str(abs(number))) for number in results)
            return
        powers = 10 ** np.arange(1, 19, dtype=np.int64)
        lengths, counts = np.unique(np.searchsorted(powers, np.abs(results), side="right") + 1, return_counts=True)
        self.digits.update(dict(zip(lengths.tolist(), counts.tolist(), strict=True)))

    def as_dict(self) -> dict[str, object]:
        """Return the statistics as the manifest holds them."""
        return {"min": self.smallest, "max": self.largest, "digits": _by_number(self.digits)}


@dataclass
class TrainingSet:
    """One training file: its expressions by operand count, the kinds of its rows with their shares, and statistics.

    Expressions are over key indices, or over numbers if `over_numbers`. `draw_context` draws the key expressions of
    kinds with a {context}. `is_known` marks the keys that are substituted by their values; every other key is
    substituted by a random number, drawn anew in each row.
    """

    name: str
    expressions: dict[int, Expressions]
    kinds: Sequence[str]
    shares: Sequence[float]
    over_numbers: bool = False
    draw_context: Callable[[Expressions], Expressions] | None = None
    is_known: NDArray[np.bool_] | None = None
    num_operands: Counter[int] = field(default_factory=Counter)
    num_kind: Counter[str] = field(default_factory=Counter)
    results: ResultStatistics = field(default_factory=ResultStatistics)

    def tables(self, keys: KeyTable, renderer: Renderer, rng: np.random.Generator) -> Iterator[pa.Table]:
        """Yield the rows in random order, CHUNK_ROWS per table."""
        counts = {count: len(block) for count, block in self.expressions.items()}
        rows = sum(counts.values())
        operand_labels = rng.permutation(np.repeat(list(counts), list(counts.values())))
        kind_labels = rng.permutation(np.repeat(np.arange(len(self.kinds)), spread(rows, self.shares)))
        # A block that ran out of distinct expressions has its repeats at the end: shuffle it.
        order = {count: rng.permutation(size) for count, size in counts.items()}
        used = dict.fromkeys(counts, 0)
        for start in range(0, rows, CHUNK_ROWS):
            labels, kinds = (
                operand_labels[start : start + CHUNK_ROWS],
                kind_labels[start : start + CHUNK_ROWS],
            )
            parts, places = [], []
            for count in counts:
                for kind_index, kind in enumerate(self.kinds):
                    place = np.flatnonzero((labels == count) & (kinds == kind_index))
                    if not len(place):
                        continue
                    taken = order[count][used[count] : used[count] + len(place)]
                    used[count] += len(place)
                    parts.append(self._render(kind, self.expressions[count][taken], keys, renderer, rng))
                    places.append(place)
            yield pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places)))).combine_chunks()

    def _render(
        self, kind: str, expressions: Expressions, keys: KeyTable, renderer: Renderer, rng: np.random.Generator
    ) -> pa.Table:
        wanted = template_fields(kind)
        shown: Expressions | None = None
        fields: dict[str, pa.Array] = {}
        numbers = expressions if self.over_numbers else expressions.substitute(keys.values)
        if self.is_known is not None:
            is_unknown = ~self.is_known[expressions.operands]
            numbers.operands[is_unknown] = rng.integers(1, keys.values.max() + 1, is_unknown.sum())
        if "keys" in wanted:
            shown = expressions
            fields["keys"] = renderer.keys(expressions)
        if "context" in wanted and self.draw_context is not None:
            shown = self.draw_context(expressions)
            fields["context"] = renderer.keys(shown)
        if "numbers" in wanted:
            fields["numbers"] = renderer.numbers(numbers)
        if "value" in wanted:
            results = evaluate(numbers)
            self.results.add(results)
            fields["value"] = renderer.results(results)
        self.num_operands[expressions.num_operands] += len(expressions)
        self.num_kind[kind] += len(expressions)
        return _training_table(kind, fields, expressions, count_held_in(shown, keys, len(expressions)))

    def statistics(self) -> dict[str, object]:
        """Return what was counted while `tables` yielded the rows."""
        counted: dict[str, object] = {
            "num_operands": _by_number(self.num_operands),
            "kinds": dict(sorted(self.num_kind.items())),
        }
        if self.results.digits:
            counted["results"] = self.results.as_dict()
        return counted


def count_held_in(shown: Expressions | None, keys: KeyTable, rows: int) -> NDArray[np.int8]:
    """Return the number of held-in keys in each row, (rows,); 0 if the rows show no keys (`shown` is None)."""
    if shown is None:
        return np.zeros(rows, dtype=np.int8)
    return keys.held_in[shown.operands].sum(axis=1).astype(np.int8)


def spread(rows: int, weights: Sequence[float]) -> list[int]:
    """Split `rows` in proportion to `weights` by largest remainders, so that the parts sum to `rows`."""
    exact = rows * np.asarray(weights, dtype=np.float64) / sum(weights)
    parts = np.floor(exact).astype(np.int64)
    largest = np.argsort(parts - exact, kind="stable")[: rows - int(parts.sum())]
    parts[largest] += 1
    return [int(part) for part in parts]


def _training_table(
    kind: str, fields: dict[str, pa.Array], expressions: Expressions, num_held_in: NDArray[np.int8]
) -> pa.Table:
    prompt, completion = render_kind(kind, fields)
    rows = len(expressions)
    meta = pa.StructArray.from_arrays(
        [
            pa.array(np.full(rows, expressions.num_operands, dtype=np.int8)),
            pa.array(num_held_in),
            pc.cast(pa.repeat(pa.scalar(kind), rows), pa.string()),
            pa.repeat(pa.scalar(kind in OPEN_ENDED), rows),
        ],
        fields=list(TRAINING_SCHEMA.field("meta").type),
    )
    return pa.Table.from_arrays([prompt, completion, meta], schema=TRAINING_SCHEMA)


def _by_number(counter: Counter[int]) -> dict[str, int]:
    return {str(number): counter[number] for number in sorted(counter)}
