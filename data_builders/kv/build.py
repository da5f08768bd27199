"""Build the data of the paper's key-value task: keys, tokenizers, test set, and the training files of every stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_builders.bpe_tokenizer import tokenizer_at_hand
from data_builders.build import BuildFolder, run_build
from data_builders.errors import UserError
from data_builders.kv.config import STRATA, KVDataConfig
from data_builders.kv.expressions import (
    Accept,
    Expressions,
    draw_keys,
    draw_numbers,
    sample_distinct,
)
from data_builders.kv.keys import build_keys
from data_builders.kv.render import Renderer
from data_builders.kv.test_set import EvalSet, count_overlaps, eval_table, sample_test_set
from data_builders.kv.text import FORMAT, WORDS
from data_builders.kv.tokenizers import CUTS, build_byte_tokenizer, build_word_tokenizer
from data_builders.kv.training_set import TRAINING_SCHEMA, ResultStatistics, TrainingSet, spread
from data_builders.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["KVDataConfig", "build"]

BUILDER = "kv"
MAX_REDRAWS = 100
COMPOSITION_FILES = ("dc_subs.parquet", "dc_math.parquet", "dc_mix.parquet")
TRAINING_FILES = ("aug_train.parquet", "anchor_train.parquet", *COMPOSITION_FILES)
SECOND_AUG_FILE = "aug2_train.parquet"
# Every file has its own random stream, so a change to one leaves the bytes of the others unchanged.
_STREAMS = ("keys", "test.parquet", *TRAINING_FILES, SECOND_AUG_FILE)


def build(config: KVDataConfig, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Build the data folder `out`, unless the same build is already there, and return its manifest.

    Raises UserError if the folder holds something else, or the settings cannot be met.
    """
    settings = asdict(config)
    if config.anchor_cut is None:  # keeps the identity of folders built before these settings existed
        del settings["anchor_cut"], settings["aug_cuts"]
    identity = {"builder": BUILDER, "format": FORMAT, "config": settings}
    return run_build(identity, out, progress, lambda folder: _Build(config, folder).run())


def check(config: KVDataConfig) -> None:
    """Raise UserError if the data cannot be built; check nothing if the tokenizer would have to be downloaded."""
    if config.tokenizer is None or tokenizer_at_hand(config.tokenizer) is not None:
        build = _Build(config, BuildFolder(Path(), Progress(), {}))
        sample_test_set(config, build.keys, build.rngs["test.parquet"])


class _Build:
    """The steps of one build, and the state that they share."""

    def __init__(self, config: KVDataConfig, folder: BuildFolder) -> None:
        self.config = config
        self.folder = folder
        self.rngs = {name: np.random.default_rng([config.seed, i]) for i, name in enumerate(_STREAMS)}
        self.keys, self.tokenizer = build_keys(config, self.rngs["keys"])
        self.renderer = Renderer(self.keys.names, config.num_values, config.numbers)
        self.distinct: dict[str, int] = {}
        self.statistics: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Write every file, search the training files for test expressions, and return the manifest's entries."""
        self._write_keys()
        for name, tokenizer in self._tokenizers().items():
            self.folder.save_tokenizer(tokenizer, name)
        tests = sample_test_set(self.config, self.keys, self.rngs["test.parquet"])
        table = self._write_tests(tests)
        for aug in range(self.config.num_augs):
            self._write_training(self._aug(tests, aug))
        self._write_training(self._anchor(tests))
        for name in COMPOSITION_FILES:
            self._write_training(self._composition(name, tests))
        return {
            "tokenizer": self.tokenizer,
            "number_format": asdict(self.config.numbers),
            "files": self.folder.files,
            "counts": self._counts(),
            "overlap": self._verify(table),
            "statistics": self.statistics,
        }

    def _write_keys(self) -> None:
        keys = self.keys
        table = pa.table({"key": keys.names, "value": keys.values, "held_in": keys.held_in})
        if self.config.num_augs > 1:
            table = table.append_column("aug", pa.array(keys.augs + 1))
        self._write("keys.parquet", [table], table.schema)
        lengths, counts = np.unique([len(name) for name in keys.names], return_counts=True)
        self.statistics["key_lengths"] = {str(n): int(c) for n, c in zip(lengths, counts, strict=True)}
        self.statistics["values"] = {"min": int(keys.values.min()), "max": int(keys.values.max())}

    def _tokenizers(self) -> dict[str, PreTrainedTokenizerFast]:
        """Return the tokenizers to write, by folder name."""
        config, folder = self.config, self.tokenizer["folder"]
        if config.anchor_cut is None:
            return {folder: build_word_tokenizer(self.keys.names, WORDS)} if folder else {}
        cuts = {folder: (config.anchor_cut, self.keys.names)}
        for aug, cut in enumerate(config.aug_cuts):
            cuts[self.tokenizer["augs"][aug]] = (cut, self.keys.names_of_aug(aug))
        return {name: build_byte_tokenizer(CUTS[cut], keys, WORDS) for name, (cut, keys) in cuts.items()}

    def _write_tests(self, tests: EvalSet) -> pa.Table:
        results = ResultStatistics()
        table = eval_table(tests, self.keys, self.renderer, results)
        self._write("test.parquet", [table], table.schema)
        self.distinct["test.parquet"] = table.num_rows
        rows = table.num_rows // (len(STRATA) * len(self.config.operand_counts))
        self.statistics["test.parquet"] = {
            "num_operands": {str(count): rows * len(STRATA) for count in self.config.operand_counts},
            "strata": {stratum: rows * len(self.config.operand_counts) for stratum in STRATA},
            "results": results.as_dict(),
        }
        return table

    def _write_training(self, training_set: TrainingSet) -> None:
        name = training_set.name
        self._write(name, training_set.tables(self.keys, self.renderer, self.rngs[name]), TRAINING_SCHEMA)
        self.statistics[name] = training_set.statistics()

    def _write(self, name: str, tables: Any, schema: pa.Schema) -> None:
        rows = self.folder.write_table(name, tables, schema)
        self.folder.progress.note(f"{name}: {rows:,} rows")

    def _aug(self, tests: EvalSet, aug: int) -> TrainingSet:
        name = aug_file(aug)
        config, rng = self.config, self.rngs[name]
        expressions = self._sample(
            name,
            spread_over(config.operand_counts, config.num_aug_rows, config.aug_operand_weights),
            partial(draw_keys, rng, np.arange(config.num_keys), config.operators),
            tests.without_keys,
        )
        # Keys of the other m_A appear too, as in later prompts, but with random values: there is nothing to learn.
        is_known = self.keys.augs == aug if config.num_augs > 1 else None
        return TrainingSet(name, expressions, ["kv_subs"], [1.0], is_known=is_known)

    def _anchor(self, tests: EvalSet) -> TrainingSet:
        config, rng = self.config, self.rngs["anchor_train.parquet"]
        every_key = np.arange(config.num_keys)
        expressions = self._sample(
            "anchor_train.parquet",
            spread_over(config.anchor_operand_counts, config.num_anchor_rows, config.anchor_operand_weights),
            partial(draw_numbers, rng, config.num_values, config.operators),
            tests.without_numbers,
        )

        return TrainingSet(
            "anchor_train.parquet",
            expressions,
            ["num_math", "num_math_context"],
            [1.0 - config.context_fraction, config.context_fraction],
            over_numbers=True,
            draw_context=self._contexts("anchor_train.parquet", every_key, tests),
        )

    def _composition(self, name: str, tests: EvalSet) -> TrainingSet:
        config, rng = self.config, self.rngs[name]
        held_in = self.keys.held_in_indices
        expressions = self._sample(
            name,
            spread_over(config.operand_counts, config.num_composition_rows, config.composition_operand_weights),
            partial(draw_keys, rng, held_in, config.operators),
            lambda rows: tests.without_keys(rows) & tests.without_numbers(rows.substitute(self.keys.values)),
        )
        over_keys = 1.0 - config.mix_num_math
        kinds, shares = {
            "dc_subs.parquet": (
                ["kv_subs", "num_math_context", "num_math"],
                [over_keys - config.subs_context, config.subs_context, config.mix_num_math],
            ),
            "dc_math.parquet": (["direct", "num_math"], [over_keys, config.mix_num_math]),
            "dc_mix.parquet": (
                ["stepwise", "direct", "num_math"],
                [config.mix_stepwise, config.mix_direct, config.mix_num_math],
            ),
        }[name]
        return TrainingSet(name, expressions, kinds, shares, draw_context=self._contexts(name, held_in, tests))

    def _contexts(self, name: str, keys: NDArray[np.int64], tests: EvalSet) -> Callable[[Expressions], Expressions]:
        """Return a function that draws key expressions to precede unrelated numbers, with the numbers' operators."""
        draw = partial(draw_keys, self.rngs[name], keys, self.config.operators)

        def draw_context(numbers: Expressions) -> Expressions:
            context = Expressions(draw(numbers.num_operands, len(numbers)).operands, numbers.operators)
            for _ in range(MAX_REDRAWS):
                refused = ~tests.without_keys(context)
                if not refused.any():
                    return context
                context.operands[refused] = draw(numbers.num_operands, int(refused.sum())).operands
            raise UserError(f"{name}: no key expressions are left beside the test set; use more keys")

        return draw_context

    def _sample(
        self, name: str, rows_of: dict[int, int], draw: Callable[[int, int], Expressions], accept: Accept
    ) -> dict[int, Expressions]:
        expressions, distinct = {}, 0
        for count, rows in rows_of.items():
            expressions[count], different = sample_distinct(
                rows, partial(draw, count), accept, f"{name} with {count} operands", allow_repeats=True
            )
            distinct += different
        self.distinct[name] = distinct
        return expressions

    def _verify(self, tests: pa.Table) -> dict[str, int]:
        """Count test expressions in the written training files; raises UserError if there is one."""
        out, aug_files = self.folder.path, [aug_file(aug) for aug in range(self.config.num_augs)]
        overlap = {
            "train_test_expressions": count_overlaps(out, [*aug_files, *TRAINING_FILES[1:]], tests["keys"]),
            "train_test_numbers": count_overlaps(out, TRAINING_FILES[1:], tests["numbers"]),
        }
        if any(overlap.values()):
            raise UserError(f"{out}: test expressions in the training files ({overlap}); do not use this folder")
        return overlap

    def _counts(self) -> dict[str, Any]:
        return {
            "keys": self.config.num_keys,
            "held_in_keys": int(self.keys.held_in.sum()),
            "values": self.config.num_values,
            "rows": {name: entry["rows"] for name, entry in self.folder.files.items() if entry["rows"] is not None},
            "distinct_expressions": self.distinct,
        }


def aug_file(aug: int) -> str:
    """Return the name of the training file of one m_A, counted from 0."""
    return TRAINING_FILES[0] if aug == 0 else SECOND_AUG_FILE


def spread_over(counts: range, rows: int, weights: Sequence[float] | None) -> dict[int, int]:
    """Return the number of rows of each operand count, leaving out counts with none."""
    parts = spread(rows, weights or [1.0] * len(counts))
    return {count: part for count, part in zip(counts, parts, strict=True) if part}
