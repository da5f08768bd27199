"""Shards: the rows of one block each, made by several processes and kept on the disk until the build is finished.

A shard is a Parquet file for each split and, written last, its counts: one that has them is not made again by a build
that resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.manifest import write_parquet
from data_builders.ntl.corpora import Corpora
from data_builders.ntl.corpus import Block, Corpus
from data_builders.ntl.fingerprints import OverlapIndex
from data_builders.ntl.rows import SHARD_SCHEMA, Counts, RowPlan, make_rows
from data_builders.progress import Progress
from data_builders.values import read_json, write_json
from data_builders.workers import Workers

_index: OverlapIndex | None = None


@dataclass(frozen=True)
class Shard:
    """One shard in `folder`, the `number`th of its corpora."""

    folder: Path
    number: int

    def file(self, split: str) -> Path:
        """Return the rows of a split."""
        return self.folder / f"{self.number:06d}.{split}.parquet"

    @property
    def counts_file(self) -> Path:
        """Return the file whose presence says that the shard is whole."""
        return self.folder / f"{self.number:06d}.json"

    @property
    def counts(self) -> Counts:
        """Return what became of its sentences."""
        return Counts(**read_json(self.counts_file)["counts"])

    def num_rows(self, split: str) -> int:
        """Return its rows of a split."""
        return int(read_json(self.counts_file)["rows"][split])


@dataclass(frozen=True)
class IndexPlace:
    """Where the index of the test set is, and from which share on sentences are near-duplicates."""

    folder: Path
    min_share: float


def open_index(place: IndexPlace | None) -> None:
    """Open the index of the test set in this process; None: nothing is compared."""
    global _index
    _index = None if place is None else OverlapIndex.open(place.folder, place.min_share)


def make_shards(
    corpora: Corpora,
    plan_of: Callable[[Corpus], RowPlan],
    folder: Path,
    workers: Workers,
    progress: Progress,
) -> list[Shard]:
    """Make the shards of all corpora that are not there yet; a few blocks a process are in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    total = sum(min(each.num_rows, corpora.max_rows or each.num_rows) for each in corpora.corpora)
    for done in workers.map(_make, _jobs(corpora, plan_of, folder, shards)):
        progress.step(f"{folder.name}, aligned rows", done, total)
    return shards


_Job = tuple[Shard, Block, int, RowPlan, int]


def _jobs(corpora: Corpora, plan_of: Callable[[Corpus], RowPlan], folder: Path, shards: list[Shard]) -> Iterator[_Job]:
    """Yield what `_make` makes missing shards of; append every shard to `shards`."""
    read = 0
    for corpus in corpora.corpora:
        plan, first_row = plan_of(corpus), 0
        for block in corpus.blocks(corpora.max_rows):
            shard = Shard(folder, len(shards))
            shards.append(shard)
            rows = len(next(iter(block.values())))
            read += rows
            if not shard.counts_file.exists():
                yield shard, block, first_row, plan, read
            first_row += rows


def _make(job: _Job) -> int:
    """Write a shard and return how many rows of all corpora were read for it and those before."""
    shard, block, first_row, plan, read = job
    # Every shard draws from a stream of its own, so that it does not matter which are made when.
    rng = np.random.default_rng([plan.seed, shard.number, *shard.folder.name.encode()])
    tables, counts = make_rows(block, first_row, plan, _index, rng)
    rows = {split: write_parquet(shard.file(split), [table], SHARD_SCHEMA) for split, table in tables.items()}
    content: dict[str, Any] = {"rows": rows, "counts": asdict(counts)}
    write_json(shard.counts_file, content)
    return read
