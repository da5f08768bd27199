"""The tokenizer of a build: trained on its files or named by the user, and checked on every language."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_builders.bpe_tokenizer import coverage, require_coverage, train_bpe
from data_builders.build import BuildFolder
from data_builders.ntl.config import NTLDataConfig
from data_builders.ntl.writer import sample
from data_builders.row_files import text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer"
Counts = Mapping[str, Mapping[tuple[str, str, str], int]]
# Rows of each file in which tokens are counted.
TOKEN_SAMPLE = 2000
# Sentences of each language for the coverage check.
COVERAGE_SAMPLE = 300


def write_tokenizer(
    config: NTLDataConfig, named: PreTrainedTokenizerBase | None, folder: BuildFolder, counts: Counts
) -> dict[str, Any]:
    """Train a tokenizer unless the user named one, check it, and return its entry in the manifest.

    Args:
        counts: rows by (kind, source, target) of each file (its name without `.parquet`).

    Raises:
        UserError: it splits the characters of a language, or has too many unknown tokens in it.
    """
    folder.progress.step("tokenizer", 0, 1)
    training = [name for name in ("aug_train", "anchor_train") if name in counts]
    languages = sorted({target for name in training for _, _, target in counts[name]})
    files = {path: folder.files[path.name]["rows"] for path in folder.tables}
    tokenizer = named
    if tokenizer is None:
        trained_on = [folder.path / f"{name}.parquet" for name in training]
        share = config.tokenizer_bytes // max(1, len(languages))
        tokenizer = train_bpe(_balanced(trained_on, share, languages), config.vocab_size)
    tokens, covered = _tried(config, tokenizer, files)
    if named is None:
        folder.save_tokenizer(tokenizer, TOKENIZER)
    folder.progress.note(f"tokenizer: {len(tokenizer):,} tokens; {sum(tokens.values()):,} tokens in all files, about")
    return {
        "folder": TOKENIZER if named is None else None,
        "name": config.tokenizer,
        "size": len(tokenizer),
        "tokens_about": tokens,
        "coverage": covered,
    }


def _tried(
    config: NTLDataConfig, tokenizer: PreTrainedTokenizerBase, files: Mapping[Path, int]
) -> tuple[dict[str, int], dict[str, dict[str, float]]]:
    """Return the estimated tokens of each file, by name, and the coverage of each language; `files` has their rows."""
    samples: dict[str, list[str]] = {}
    tokens = {}
    for path, rows in files.items():
        chosen = np.arange(0, rows, -(-rows // TOKEN_SAMPLE))
        texts = [row for table in sample(_row_groups(path), chosen) for row in _rows(table)]
        encoded = tokenizer([text for _, text in texts], add_special_tokens=False)["input_ids"]
        tokens[path.stem] = round(sum(map(len, encoded)) / len(encoded) * rows)
        for language, text in texts:
            sentences = samples.setdefault(language, [])
            if len(sentences) < COVERAGE_SAMPLE:
                sentences.append(text.rpartition(" sentence: ")[2])
    covered = coverage(tokenizer, samples)
    setting = f"vocab_size: {config.vocab_size}" if config.tokenizer is None else f"tokenizer: {config.tokenizer}"
    require_coverage(setting, covered, config.max_tokens_per_character)
    return tokens, covered


def _balanced(files: Sequence[Path], share: int, languages: Collection[str]) -> Iterator[str]:
    """Yield texts until every language has `share` bytes."""
    left = dict.fromkeys(languages, share)
    for path in files:
        for table in _row_groups(path):
            unfilled = pa.array([code for code, num_bytes in left.items() if num_bytes > 0], pa.string())
            if not len(unfilled):
                return
            is_wanted = pc.is_in(pc.struct_field(table["meta"], "target"), unfilled)
            for language, text in _rows(table.filter(is_wanted)):
                if left[language] > 0:
                    left[language] -= len(text.encode())
                    yield text


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as parquet:
        # One at a time, to bound memory.
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group)


def _rows(table: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield (target language, whole text) of rows."""
    for row in table.to_pylist():
        yield row["meta"]["target"], text_of(row)
