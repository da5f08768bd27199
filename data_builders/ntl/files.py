"""The files of a build out of its shards: which rows each holds, in which columns, and their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_builders.ntl.shards import Shard
from data_builders.postings import Hashes, contains

_META = pa.struct([("kind", pa.string()), ("source", pa.string()), ("target", pa.string())])


def _schema(*columns: str) -> pa.Schema:
    fields = [pa.field(name, pa.string(), nullable=False) for name in ("id", *columns)]
    return pa.schema([*fields, pa.field("meta", _META, nullable=False)])


# By the settings `train_rows` and `composition_rows`.
SCHEMAS = {"text": _schema("text"), "pairs": _schema("prompt", "completion")}


def shard_rows(
    shards: Sequence[Shard], split: str, held_out: Hashes | None = None, kinds: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield the rows of each shard: without what belongs to a held-out sentence, and only of these kinds if any."""
    for shard in shards:
        table = pq.read_table(shard.file(split))
        if held_out is not None and table.num_rows:
            table = table.filter(pa.array(~_is_held_out(table, held_out)))
        if kinds:
            table = table.filter(pc.is_in(table["kind"], pa.array(kinds)))
        if table.num_rows:
            yield table


def marks_of(shards: Sequence[Shard], split: str) -> Hashes:
    """Return, in order, the hashes of all sentences of the rows of a split."""
    found = [pc.list_flatten(pq.read_table(shard.file(split), columns=["marks"])["marks"]) for shard in shards]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(each.to_numpy() for each in found)]))


def sample(tables: Iterable[pa.Table], chosen: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Yield the rows with these ordered indices."""
    first = 0
    for table in tables:
        inside = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + table.num_rows)]
        if len(inside):
            yield table.take(pa.array(inside - first))
        first += table.num_rows


def each_once(tables: Iterable[pa.Table], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the ordered indices of rows, drawn at random, no two of which have a sentence of their own in common."""
    owned: list[list[int]] = []
    for table in tables:
        for kind, marks in zip(table["kind"].to_pylist(), table["marks"].to_pylist(), strict=True):
            owned.append(marks[: 2 if kind == "translation" else 1])
    seen: set[int] = set()
    kept = []
    for row in rng.permutation(len(owned)).tolist():
        if seen.isdisjoint(owned[row]):
            seen.update(owned[row])
            kept.append(row)
    return np.sort(np.asarray(kept, np.int64))


def choose(rng: np.random.Generator, total: int, rows: int) -> NDArray[np.int64]:
    """Return the ordered indices of `rows` out of `total` rows, each as likely as any other."""
    return np.sort(rng.choice(total, min(rows, total), replace=False))


def as_training(tables: Iterable[pa.Table], columns: str, counts: Counter[tuple[str, str, str]]) -> Iterator[pa.Table]:
    """Yield rows in the columns `text` or `pairs`, and add up (kind, source, target) in `counts`."""
    for table in tables:
        grouped = table.group_by(["kind", "source", "target"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            counts[row["kind"], row["source"], row["target"]] += row["count_all"]
        meta = pa.StructArray.from_arrays([table[field.name].combine_chunks() for field in _META], fields=list(_META))
        texts = [table["prompt"], table["completion"]]
        if columns == "text":
            texts = [pc.binary_join_element_wise(*texts, "")]
        yield pa.Table.from_arrays([table["id"], *texts, meta], schema=SCHEMAS[columns]).combine_chunks()


def described(counts: Counter[tuple[str, str, str]]) -> dict[str, dict[str, int]]:
    """Return the rows of a file by kind, and by language or pair of languages."""
    tables: dict[str, dict[str, int]] = {}
    for (kind, source, target), rows in sorted(counts.items()):
        tables.setdefault(kind, {})[source if source == target else f"{source}-{target}"] = rows
    return tables


def _is_held_out(table: pa.Table, held_out: Hashes) -> NDArray[np.bool_]:
    """Return which rows have a held-out sentence in them, in worked pairs too, or a translation of one."""
    lists = table["marks"].combine_chunks()
    is_in = contains(held_out, lists.flatten().to_numpy())
    starts = lists.offsets.to_numpy()[:-1] - lists.offsets[0].as_py()
    is_own = is_in[starts]
    is_pair = pc.equal(table["kind"], "translation").to_numpy()
    is_own[is_pair] |= is_in[starts[is_pair] + 1]
    # What is aligned with a held-out sentence is its translation.
    rows = table["row"].to_numpy()
    return np.asarray(np.logical_or.reduceat(is_in, starts) | np.isin(rows, rows[is_own]))
