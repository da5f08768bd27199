"""The files of a build out of its shards: which rows each holds, in which columns, and their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_builders.ntl_shards import Shard
from data_builders.postings import Hashes

_META = pa.struct([("kind", pa.string()), ("source", pa.string()), ("target", pa.string())])


def _schema(*columns: str) -> pa.Schema:
    fields = [pa.field(name, pa.string(), nullable=False) for name in ("id", *columns)]
    return pa.schema([*fields, pa.field("meta", _META, nullable=False)])


# By the settings `train_rows` and `composition_rows`.
SCHEMAS = {"text": _schema("text"), "pairs": _schema("prompt", "completion")}


def shard_rows(
    shards: Sequence[Shard], split: str, held_out: Hashes | None = None, kinds: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield the rows of each shard: without those that have a held-out sentence, and only of these kinds if any."""
    for shard in shards:
        table = pq.read_table(shard.file(split))
        if kinds:
            table = table.filter(pc.is_in(table["kind"], pa.array(kinds)))
        if held_out is not None and table.num_rows:
            table = table.filter(pa.array(~_has_any(table["marks"], held_out)))
        if table.num_rows:
            yield table


def held_out_marks(shards: Sequence[Shard]) -> Hashes:
    """Return, in order, the hashes of all sentences of validation rows."""
    found = [pc.list_flatten(pq.read_table(shard.file("validation"), columns=["marks"])["marks"]) for shard in shards]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(each.to_numpy() for each in found)]))


def sample(tables: Iterable[pa.Table], chosen: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Yield the rows with these ordered indices."""
    first = 0
    for table in tables:
        inside = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + table.num_rows)]
        if len(inside):
            yield table.take(pa.array(inside - first))
        first += table.num_rows


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


def _has_any(lists: pa.ChunkedArray, ordered: Hashes) -> NDArray[np.bool_]:
    values = lists.combine_chunks()
    flat = values.flatten().to_numpy()
    places = np.minimum(np.searchsorted(ordered, flat), max(0, len(ordered) - 1))
    is_in = ordered[places] == flat if len(ordered) else np.zeros(len(flat), np.bool_)
    offsets = values.offsets.to_numpy() - values.offsets[0].as_py()
    return np.asarray(np.logical_or.reduceat(is_in, offsets[:-1]))
