"""Build the training data for reasoning: a mix of training sets, without the questions of any test set.

Published models were trained on mixes that hold test questions word for word; so every question of every test set in
the folder is looked for, and what is found is removed, counted and listed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_builders.benchmarks.reasoning import ARITHMETIC, COMMONSENSE, TRAINED
from data_builders.benchmarks.reasoning_rows import find_set, read_reasoning
from data_builders.build import BuildFolder, run_build
from data_builders.errors import UserError
from data_builders.files import write_text
from data_builders.progress import Progress
from data_builders.reasoning.config import ReasoningDataConfig
from data_builders.reasoning.sources import Pair, read_sources
from data_builders.row_files import json_lines

BUILDER, FORMAT = "reasoning", 1
TRAIN, VALIDATION, OVERLAPS = "train.parquet", "validation.parquet", "overlaps.jsonl"
_META = ("meta", pa.struct([("source", pa.string())]))
_SCHEMAS = {
    "completion": pa.schema([("prompt", pa.string()), ("completion", pa.string()), _META]),
    "all": pa.schema([("text", pa.string()), _META]),
}
_WORD = re.compile(r"\w+")


def build(config: ReasoningDataConfig, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Build the data folder `out`, unless the same build is already there, and return its manifest.

    Raises:
        UserError: the folder holds something else, or the settings cannot be met.
    """
    identity = {"builder": BUILDER, "format": FORMAT, "config": asdict(config)}
    return run_build(identity, out, progress, lambda folder: _made(config, folder))


def check(config: ReasoningDataConfig) -> None:
    """Raise UserError if the data cannot be built."""
    pairs, _ = read_sources(config)
    _split(config, pairs)
    _test_questions(config)


def words(question: str) -> str:
    """Return a question as it is compared: its words and numbers in lower case."""
    return " ".join(_WORD.findall(question.lower()))


def _made(config: ReasoningDataConfig, folder: BuildFolder) -> dict[str, Any]:
    pairs, checksums = read_sources(config)
    tests, test_checksums = _test_questions(config)
    found = {place: sets for place, pair in enumerate(pairs) if (sets := tests.get(words(pair.instruction)))}
    kept = [pair for place, pair in enumerate(pairs) if config.overlaps == "keep" or place not in found]
    train, validation = _split(config, kept)
    for name, part in ((TRAIN, train), (VALIDATION, validation)):
        schema = _SCHEMAS[config.loss_on]
        folder.write_table(name, [pa.Table.from_pylist([_row(config, pair) for pair in part], schema)], schema)
    listed = [
        {"source": pairs[place].source, "tests": sorted(sets), "instruction": pairs[place].instruction}
        for place, sets in found.items()
    ]
    write_text(folder.path / OVERLAPS, json_lines(listed))
    folder.add(OVERLAPS, len(listed))
    folder.progress.note(
        f"{len(train):,} rows to train on, {len(validation):,} to validate, {len(found):,} ask test questions"
    )
    return {
        "files": folder.files,
        "made_of": checksums,
        "compared_with": test_checksums,
        "counts": {TRAIN: _by_source(train), VALIDATION: _by_source(validation)},
        "overlap": _overlap(pairs, kept, tests, found),
    }


def _test_questions(config: ReasoningDataConfig) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    """Return every test question of the folder with the sets that ask it (and how often), and the files' sha256."""
    tests: dict[str, Counter[str]] = {}
    checksums: dict[str, str] = {}
    folder = Path(config.data_folder) if config.data_folder else None
    if folder is None:
        raise UserError("data_folder is not set; give --data FOLDER with the test sets, whose questions are kept out")
    for which in (*ARITHMETIC, *COMMONSENSE):
        if find_set(folder, which):
            problems, files = read_reasoning(folder, which)
            checksums |= files
            for problem in problems:
                tests.setdefault(words(problem.instruction), Counter())[which.name] += 1
    if not tests:
        raise UserError(f"data_folder: {folder} holds no test set (SET/test.json); a mix cannot be compared with any")
    return tests, checksums


def _split(config: ReasoningDataConfig, pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Return the rows to train on, in their order, and those held out, drawn by the seed."""
    if len(pairs) <= config.validation_rows:
        raise UserError(f"validation_rows: {config.validation_rows} of {len(pairs)} rows leave none; set it lower")
    drawn = np.random.default_rng(config.seed).permutation(len(pairs))[: config.validation_rows]
    held_out = set(drawn.tolist())
    train = [pair for place, pair in enumerate(pairs) if place not in held_out]
    return train, [pairs[place] for place in sorted(held_out)]


def _row(config: ReasoningDataConfig, pair: Pair) -> dict[str, Any]:
    before, after = TRAINED[config.form]
    prompt, meta = f"{before}{pair.instruction}{after}", {"source": pair.source}
    if config.loss_on == "all":
        return {"text": prompt + pair.output, "meta": meta}
    return {"prompt": prompt, "completion": pair.output, "meta": meta}


def _by_source(pairs: Sequence[Pair]) -> dict[str, int]:
    return dict(Counter(pair.source for pair in pairs))


def _overlap(
    pairs: Sequence[Pair],
    kept: Sequence[Pair],
    tests: Mapping[str, Counter[str]],
    found: Mapping[int, Counter[str]],
) -> dict[str, Any]:
    """Return how many questions of each test set the training files hold, and how many of their rows ask one."""
    in_files = {words(pairs[place].instruction) for place in found}
    asked: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for question, sets in tests.items():
        asked.update(sets)
        there.update(sets if question in in_files else {})
    left = sum(words(pair.instruction) in tests for pair in kept)
    return {
        "tests": {name: {"questions": asked[name], "in_training_files": there[name]} for name in asked},
        "rows": dict(Counter(pairs[place].source for place in found)),
        "left": left,
    }
