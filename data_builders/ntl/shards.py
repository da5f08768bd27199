"""Shards: the rows of one block each, made by several processes, and read again for every file that is written."""

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
    """Make the shards of a model's corpora that are not there yet; a few blocks a process are in memory at a time."""
    shards: list[Shard] = []
    total = sum(min(each.num_rows, corpora.max_rows or each.num_rows) for each in corpora.corpora)
    for done in workers.map(partial(_make, name), _jobs(name, corpora, config, folder, shards)):
        folder.progress.step(f"{name}, aligned rows", done, total)
    return shards


def _jobs(
    name: str, corpora: Corpora, config: NTLDataConfig, folder: BuildFolder, shards: list[Shard]
) -> Iterator[_Job]:
    """Yield what `_make` makes missing shards of; append every shard to `shards`."""
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
    """Write a shard and return how many rows of all corpora were read for it and those before."""
    shard, block, first_row, plan, read = job
    # Every shard draws from a stream of its own, so that it does not matter which are made when.
    rng = np.random.default_rng([plan.seed, int(shard.name), *name.encode()])
    tables, counts = make_rows(block, first_row, plan, index, rng)
    shard.write(tables, asdict(counts))
    return read


def shard_rows(
    shards: Sequence[Shard], split: str, held_out: Hashes | None = None, kinds: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield the rows of each shard: without what belongs to a held-out sentence, and only of these kinds if any."""
    for shard in shards:
        table = shard.read(split)
        if held_out is not None and table.num_rows:
            table = table.filter(pa.array(~_is_held_out(table, held_out)))
        if kinds:
            table = table.filter(pc.is_in(table["kind"], pa.array(kinds)))
        if table.num_rows:
            yield table


def marks_of(shards: Sequence[Shard], split: str) -> Hashes:
    """Return, in order, the hashes of all sentences of the rows of a split."""
    found = [pc.list_flatten(shard.read(split, ["marks"])["marks"]) for shard in shards]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(each.to_numpy() for each in found)]))


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
