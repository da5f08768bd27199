"""The key-value test set, and the checks that keep its expressions out of the training files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_builders.kv.config import STRATA, KVDataConfig
from data_builders.kv.expressions import (
    Accept,
    Expressions,
    contains,
    draw_keys,
    evaluate,
    fingerprints,
    sample_distinct,
)
from data_builders.kv.keys import KeyTable
from data_builders.kv.render import Renderer, decimal
from data_builders.kv.training_set import ResultStatistics, count_held_in

TEST_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("id", pa.string()),
            ("keys", pa.string()),
            ("numbers", pa.string()),
            ("value", pa.string()),
            ("num_operands", pa.int8()),
            ("num_held_in", pa.int8()),
            ("stratum", pa.string()),
        )
    ]
)


BOTH = "1+2"
AUGS_FIELD = pa.field("augs", pa.string(), nullable=False)
"""With two m_As: whose keys an expression has, `1`, `2` or BOTH."""


@dataclass(frozen=True)
class EvalSet:
    """Test expressions over key indices by (stratum, operand count, augs), and the hashes that training data avoids."""

    expressions: dict[tuple[str, int, str], Expressions]
    key_marks: NDArray[np.uint64]
    number_marks: NDArray[np.uint64]

    def without_keys(self, expressions: Expressions) -> NDArray[np.bool_]:
        """Return a mask (rows,) of the key expressions that are not in the test set."""
        return ~contains(self.key_marks, fingerprints(expressions))

    def without_numbers(self, expressions: Expressions) -> NDArray[np.bool_]:
        """Return a mask (rows,) of the number expressions that no test expression substitutes to."""
        return ~contains(self.number_marks, fingerprints(expressions))


def sample_test_set(config: KVDataConfig, keys: KeyTable, rng: np.random.Generator) -> EvalSet:
    """Draw `num_test_rows` distinct expressions for each stratum, operand count and group of m_As."""
    pools = {
        "held_in": keys.held_in_indices,
        "held_out": keys.held_out_indices,
        "mixed": np.arange(config.num_keys),
    }
    of_augs = {"": np.arange(config.num_keys)}
    if config.num_augs > 1:
        of_augs = {"1": keys.of_aug(0), "2": keys.of_aug(1), BOTH: of_augs[""]}
    expressions = {}
    for count in config.operand_counts:
        for stratum in STRATA:
            for augs, indices in of_augs.items():
                pool = np.intersect1d(pools[stratum], indices)
                expressions[stratum, count, augs], _ = sample_distinct(
                    config.num_test_rows,
                    partial(draw_keys, rng, pool, config.operators, count),
                    _accept(stratum, augs, keys),
                    f"test stratum {stratum} with {count} operands",
                    allow_repeats=False,
                )
    blocks = list(expressions.values())
    key_marks = np.concatenate([fingerprints(block) for block in blocks])
    number_marks = np.concatenate([fingerprints(block.substitute(keys.values)) for block in blocks])
    return EvalSet(expressions, np.unique(key_marks), np.unique(number_marks))


def _accept(stratum: str, augs: str, keys: KeyTable) -> Accept:
    def accepted(expressions: Expressions) -> NDArray[np.bool_]:
        fitting = np.ones(len(expressions), dtype=np.bool_)
        if stratum == "mixed":
            held_in = count_held_in(expressions, keys, len(expressions))
            fitting &= (held_in > 0) & (held_in < expressions.num_operands)
        if augs == BOTH:
            of_second = (keys.augs[expressions.operands] == 1).sum(axis=1)
            fitting &= (of_second > 0) & (of_second < expressions.num_operands)
        return fitting

    return accepted


def eval_table(tests: EvalSet, keys: KeyTable, renderer: Renderer, results: ResultStatistics) -> pa.Table:
    """Render the test set, interleaved so that every prefix is balanced over strata, operand counts and m_As."""
    has_groups = len(np.unique(keys.augs)) > 1
    blocks = []
    for (stratum, count, augs), expressions in tests.expressions.items():
        numbers = expressions.substitute(keys.values)
        values = evaluate(numbers)
        results.add(values)
        rows = len(expressions)
        columns = [
            pa.array([f"{stratum}-{count}-{index:05d}{augs and f'-{augs}'}" for index in range(rows)]),
            renderer.keys(expressions),
            renderer.numbers(numbers),
            decimal(values),
            pa.array(np.full(rows, count, dtype=np.int8)),
            pa.array(count_held_in(expressions, keys, rows)),
            pa.array([stratum] * rows),
        ]
        block = pa.Table.from_arrays(columns, schema=TEST_SCHEMA)
        blocks.append(block.append_column(AUGS_FIELD, [pa.array([augs] * rows)]) if has_groups else block)
    table = pa.concat_tables(blocks)
    per_block = table.num_rows // len(blocks)
    interleaved = np.arange(table.num_rows).reshape(len(blocks), per_block).T.ravel()
    return table.take(pa.array(interleaved)).combine_chunks()


def count_overlaps(folder: Path, files: Sequence[str], tests: pa.ChunkedArray) -> int:
    """Count how often a test expression occurs anywhere in the text of the written training files."""
    return sum(_count_in(texts, tests.combine_chunks()) for texts in _read_texts(folder, files))


def _read_texts(folder: Path, files: Sequence[str]) -> Iterable[pa.Array]:
    for name in files:
        with pq.ParquetFile(folder / name) as parquet:
            for batch in parquet.iter_batches(columns=["prompt", "completion"]):
                yield pc.binary_join_element_wise(batch.column("prompt"), batch.column("completion"), "")


def _count_in(texts: pa.Array, tests: pa.Array) -> int:
    """Count test expressions in texts; between any two `:` or `=` there is one expression, one value or a word."""
    pieces = pc.list_flatten(pc.split_pattern(pc.replace_substring(texts, ":", "="), "="))
    found = pc.sum(pc.is_in(pc.utf8_trim_whitespace(pieces), value_set=tests)).as_py()
    return int(found or 0)
