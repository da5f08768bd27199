"""Shards: the rows of one block each, made by several processes and kept on the disk until the build is finished.

A shard is two Parquet files and, written last, its counts: one that has them is not made again by a build that resumes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.corpus import Block, Corpus
from data_builders.manifest import write_json, write_parquet
from data_builders.ntl_corpora import Corpora
from data_builders.ntl_rows import SHARD_SCHEMA, Counts, RowPlan, make_rows
from data_builders.overlap import OverlapIndex

_REPORT_EVERY = 50


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
        return Counts(**json.loads(self.counts_file.read_text(encoding="utf-8"))["counts"])

    def num_rows(self, split: str) -> int:
        """Return its rows of a split."""
        return int(json.loads(self.counts_file.read_text(encoding="utf-8"))["rows"][split])


@dataclass(frozen=True)
class IndexPlace:
    """Where the index of the test set is, and from which share on sentences are near-duplicates."""

    folder: Path
    min_share: float


def make_shards(
    corpora: Corpora,
    plan_of: Callable[[Corpus], RowPlan],
    folder: Path,
    index: IndexPlace | None,
    workers: int,
    report: Callable[[str], None],
) -> list[Shard]:
    """Make the shards of all corpora that are not there yet; a few blocks a process are in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    pending: deque[Future[None]] = deque()
    total = sum(min(each.num_rows, corpora.max_rows or each.num_rows) for each in corpora.corpora)
    jobs = _jobs(corpora, plan_of, folder, shards)
    if workers == 1:
        _open_index(index)
        for done, job in jobs:
            _make(*job)
            _report_now_and_then(len(shards), done, total, folder.name, report)
        return shards
    with worker_pool(workers, index) as pool:
        try:
            for done, job in jobs:
                pending.append(pool.submit(_make, *job))
                if len(pending) > 2 * workers:
                    pending.popleft().result()
                _report_now_and_then(len(shards), done, total, folder.name, report)
            while pending:
                pending.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return shards


def worker_pool(workers: int, index: IndexPlace | None) -> ProcessPoolExecutor:
    """Return processes that have opened the index, leave Ctrl-C to this process, and end when it does.

    They are fresh ones rather than forks, which may inherit a lock that a thread of ours holds.
    """
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (index,))


def default_workers() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _jobs(
    corpora: Corpora, plan_of: Callable[[Corpus], RowPlan], folder: Path, shards: list[Shard]
) -> Iterator[tuple[int, tuple[Shard, Block, int, RowPlan]]]:
    """Yield rows read so far and the arguments of `_make` for missing shards; append every shard to `shards`."""
    read = 0
    for corpus in corpora.corpora:
        plan, first_row = plan_of(corpus), 0
        for block in corpus.blocks(corpora.max_rows):
            rows = len(next(iter(block.values())))
            shard = Shard(folder, len(shards))
            shards.append(shard)
            read += rows
            if not shard.counts_file.exists():
                yield read, (shard, block, first_row, plan)
            first_row += rows


def _report_now_and_then(number: int, done: int, total: int, name: str, report: Callable[[str], None]) -> None:
    if number % _REPORT_EVERY == 0:
        report(f"{name}: {done:,} of {total:,} aligned rows")


_INDEX: OverlapIndex | None = None


def _start_worker(place: IndexPlace | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _open_index(place)


def _end_with_parent() -> None:
    """End this process when its parent was killed; it would wait for work for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _open_index(place: IndexPlace | None) -> None:
    global _INDEX
    _INDEX = None if place is None else OverlapIndex.open(place.folder, place.min_share)


def _make(shard: Shard, block: Block, first_row: int, plan: RowPlan) -> None:
    # Every shard draws from a stream of its own, so that it does not matter which are made when.
    rng = np.random.default_rng([plan.seed, shard.number, *shard.folder.name.encode()])
    tables, counts = make_rows(block, first_row, plan, _INDEX, rng)
    rows = {split: write_parquet(shard.file(split), [table], SHARD_SCHEMA) for split, table in tables.items()}
    content: dict[str, Any] = {"rows": rows, "counts": asdict(counts)}
    write_json(shard.counts_file, content)
