"""Shards: the rows of one block each, made by worker processes, and read again for every output file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_builders.build import BuildFolder, Shard
from data_builders.hashing import Hashes, contains
from data_builders.ntl.config import NTLDataConfig
from data_builders.ntl.corpora import Corpora
from data_builders.ntl.corpus import Block, Corpus
from data_builders.ntl.overlap import OverlapIndex
from data_builders.ntl.rows import RowPlan, make_rows
from data_builders.workers import Workers

_Job = tuple[Shard, Block, int, RowPlan, int]


def make_shards(
    name: str, corpora: Corpora, config: NTLDataConfig, folder: BuildFolder, workers: Workers[OverlapIndex | None]
) -> list[Shard]:
    """Make the missing shards of a model's corpora and return all; each process holds only a few blocks in memory."""
    shards: list[Shard] = []
    total = sum(min(each.num_rows, corpora.max_rows or each.num_rows) for each in corpora.corpora)
    for done in workers.map(partial(_make, name), _jobs(name, corpora, config, folder, shards)):
        folder.progress.step(f"{name}, aligned rows", done, total)
    return shards


def _jobs(
    name: str, corpora: Corpora, config: NTLDataConfig, folder: BuildFolder, shards: list[Shard]
) -> Iterator[_Job]:
    """Yield the jobs of the missing shards; append every shard to `shards`."""
    read = 0
    for corpus in corpora.corpora:
        plan, first_row = _plan(config, corpora, corpus), 0
        for block in corpus.blocks(corpora.max_rows):
            shard = Shard(folder.work / name, f"{len(shards):06d}")
            shards.append(shard)
            rows = len(next(iter(block.values())))
            read += rows
            if not shard.is_whole:
                yield shard, block, first_row, plan, read
            first_row += rows


def _plan(config: NTLDataConfig, corpora: Corpora, corpus: Corpus) -> RowPlan:
    return RowPlan(
        corpus.name,
        corpora.text_languages,
        tuple(corpora.pairs(corpus.languages)),
        tuple(corpora.test_pairs(corpus.languages)) if config.test_fraction else (),
        corpora.pivots,
        config.max_shots,
        config.max_characters,
        config.validation_fraction,
        config.composition_unseen,
        config.test_fraction,
        config.seed,
    )


def _make(name: str, index: OverlapIndex | None, job: _Job) -> int:
    """Write a shard; return the number of rows read so far, over all corpora."""
    shard, block, first_row, plan, read = job
    # Every shard has its own random stream, so the order in which shards are made does not matter.
    rng = np.random.default_rng([plan.seed, int(shard.name), *name.encode()])
    tables, counts = make_rows(block, first_row, plan, index, rng)
    shard.write(tables, asdict(counts))
    return read


def shard_rows(
    shards: Sequence[Shard], split: str, held_out: Hashes | None = None, kinds: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield the rows of each shard, of these kinds (empty: all), without those that `_is_held_out` marks."""
    for shard in shards:
        table = shard.read(split)
        if held_out is not None and table.num_rows:
            table = table.filter(pa.array(~_is_held_out(table, held_out)))
        if kinds:
            table = table.filter(pc.is_in(table["kind"], pa.array(kinds)))
        if table.num_rows:
            yield table


def marks_of(shards: Sequence[Shard], split: str) -> Hashes:
    """Return the sorted, distinct hashes of all sentences in the rows of a split."""
    found = [pc.list_flatten(shard.read(split, ["marks"])["marks"]) for shard in shards]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(each.to_numpy() for each in found)]))


def _is_held_out(table: pa.Table, held_out: Hashes) -> NDArray[np.bool_]:
    """Return a mask of the rows that contain a held-out sentence (also in worked pairs) or a translation of one."""
    lists = table["marks"].combine_chunks()
    is_in = contains(held_out, lists.flatten().to_numpy())
    starts = lists.offsets.to_numpy()[:-1] - lists.offsets[0].as_py()
    is_own = is_in[starts]
    is_pair = pc.equal(table["kind"], "translation").to_numpy()
    is_own[is_pair] |= is_in[starts[is_pair] + 1]
    # Sentences aligned with a held-out one are its translations.
    rows = table["row"].to_numpy()
    return np.asarray(np.logical_or.reduceat(is_in, starts) | np.isin(rows, rows[is_own]))
