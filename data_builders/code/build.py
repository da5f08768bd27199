"""Build the data of the paper's code task: code, prose, code/docstring pairs, D_C and held-out files.

Three passes: list the sources; scan batches of files in several processes, each into a shard on disk; read the shards
again, one at a time, for every output file. An interrupted build continues after its last finished shard.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_builders.benchmarks.codexglue import make_function
from data_builders.bpe_tokenizer import coverage, require_coverage, train_bpe
from data_builders.build import BuildFolder, Shard, count_in_tables, run_build
from data_builders.code.config import CodeDataConfig
from data_builders.code.overlap import CodeOverlapIndex, build_index, test_set_sha256
from data_builders.code.parts import Part, ScannedCode
from data_builders.code.scan import count_overlaps, scan
from data_builders.code.sources import list_sources
from data_builders.errors import UserError
from data_builders.files import write_text
from data_builders.progress import Progress
from data_builders.row_files import text_of
from data_builders.workers import Workers, num_workers

__all__ = ["CodeDataConfig", "build"]

BUILDER = "code"
FORMAT = "code-1"
NUM_EXEMPLARS = 10
_SAMPLE_BYTES = 2_000_000
# Texts of each language for the coverage check of the tokenizer.
_COVERAGE_TEXTS = 50


def build(
    config: CodeDataConfig, out: Path, progress: Progress | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Build the data folder `out`, unless the same build is already there, and return its manifest.

    Args:
        workers: number of processes (None: one per core); the result does not depend on it.

    Raises:
        UserError: the folder holds something else, a source or test set is missing, or the sources have no usable code.
    """
    count = num_workers(workers)
    identity = {"builder": BUILDER, "format": FORMAT, "config": asdict(config)}
    return run_build(identity, out, progress, lambda folder: _Build(config, folder).run(count))


def check(config: CodeDataConfig) -> None:
    """Raise UserError if a source or a test set cannot be used, without building anything."""
    _index(config)
    list_sources(config)


def _index(config: CodeDataConfig) -> CodeOverlapIndex:
    return build_index(config.test_sets(), config.overlap_ngram, config.overlap_containment)


class _Build:
    """The steps of one build, and the state that they share."""

    def __init__(self, config: CodeDataConfig, folder: BuildFolder) -> None:
        self._config = config
        self._folder = folder
        self._progress = folder.progress
        self._report = folder.progress.note
        self._statistics: dict[str, Any] = {}

    def run(self, num_workers: int) -> dict[str, Any]:
        """Scan, select, write, search the written files for the test sets, and return the manifest's entries."""
        test_sets = self._config.test_sets()
        self._report(f"reading {', '.join(test_sets) or 'no test set'}")
        index = _index(self._config)
        self._folder.claim_work({"test_sets": index.digest})
        index.save(self._folder.work / "index")
        with Workers(num_workers, partial(CodeOverlapIndex.open, self._folder.work / "index")) as workers:
            corpus = ScannedCode(list(self._shards(workers)), self._config)
            parts = corpus.parts()
            for number, part in enumerate(parts, start=1):
                self._write_part(corpus, part)
                self._progress.step("files written", number, len(parts))
            self._write_functions(corpus)
            self._train_tokenizer()
            overlap = self._verify(workers)
        return {
            "sources": _sources(corpus),
            "test_sets": {name: {"sha256": test_set_sha256(name, path)} for name, path in test_sets.items()},
            "files": self._folder.files,
            "counts": _counts(corpus),
            "overlap": overlap,
            "statistics": self._statistics,
        }

    def _shards(self, workers: Workers[CodeOverlapIndex]) -> Iterator[Shard]:
        """Yield the shard of every batch; scan the batches that have none yet."""
        sources = list_sources(self._config)
        read, total = 0, sources.num_bytes
        for shard in workers.map(partial(scan, config=self._config, work=self._folder.work), sources.batches()):
            read += shard.counts["bytes"]
            self._progress.step("MB scanned", read // 1_000_000, max(read, total) // 1_000_000)
            yield shard
        self._report(f"scanned {read / 1e6:,.1f} MB")

    def _write_part(self, corpus: ScannedCode, part: Part) -> None:
        text_bytes = 0

        def measured() -> Iterator[pa.Table]:
            nonlocal text_bytes
            for table in corpus.tables(part):
                text_bytes += sum(pc.sum(pc.binary_length(column)).as_py() for column in _texts(table))
                yield table

        rows = self._folder.write_table(part.name, measured(), part.schema)
        self._statistics[part.name] = {"text_bytes": text_bytes}
        self._report(f"{part.name}: {rows:,} rows, {text_bytes / 1e6:,.2f} MB of text")

    def _write_functions(self, corpus: ScannedCode) -> None:
        """Write held-out functions in CodeXGLUE's layout, so that its evaluation can read them."""
        usable = (row for row in map(_published, corpus.held_out_pairs()) if row is not None)
        rows = list(islice(usable, NUM_EXEMPLARS + self._config.num_test_functions))
        if len(rows) <= NUM_EXEMPLARS or not self._config.num_test_functions:
            return
        for split, chosen in (("valid", rows[:NUM_EXEMPLARS]), ("test", rows[NUM_EXEMPLARS:])):
            name = f"codexglue/python/{split}.jsonl"
            write_text(self._folder.path / name, "".join(json.dumps(row) + "\n" for row in chosen))
            self._folder.add(name, len(chosen))
            self._report(f"{name}: {len(chosen):,} functions")

    def _train_tokenizer(self) -> None:
        """Train the tokenizer on code and prose, and estimate the number of tokens of each part from a sample."""
        if self._config.vocab_size is None:
            return
        self._progress.step("tokenizer", 0, 1)
        training = [name for name in ("aug_train.parquet", "anchor_train.parquet") if name in self._folder.files]
        share = self._config.tokenizer_bytes // 2
        texts = (text for name in training for _, text in _sample(self._folder.path / name, share))
        tokenizer = train_bpe(texts, self._config.vocab_size)
        samples: dict[str, list[str]] = {}
        for name, facts in self._statistics.items():
            sampled = list(_sample(self._folder.path / name, _SAMPLE_BYTES))
            num_tokens = sum(map(len, tokenizer([text for _, text in sampled], add_special_tokens=False)["input_ids"]))
            facts["bytes_per_token"] = round(sum(len(text.encode()) for _, text in sampled) / num_tokens, 3)
            facts["tokens_estimated"] = round(facts["text_bytes"] / facts["bytes_per_token"])
            for language, text in sampled:
                of_language = samples.setdefault(language, [])
                if len(of_language) < _COVERAGE_TEXTS:
                    of_language.append(text)
        covered = coverage(tokenizer, samples)
        require_coverage(f"vocab_size: {self._config.vocab_size}", covered, self._config.max_tokens_per_character)
        self._folder.save_tokenizer(tokenizer)
        self._report(f"tokenizer: {len(tokenizer):,} tokens")

    def _verify(self, workers: Workers[CodeOverlapIndex]) -> dict[str, int]:
        """Compare all written texts with the test sets; raises UserError if one overlaps."""
        counted = count_in_tables(self._folder.tables, count_overlaps, workers, self._progress)
        found = dict.fromkeys(self._config.test_sets(), 0) | counted
        if any(found.values()):
            raise UserError(
                f"{self._folder.path}: texts of the test sets are in the files ({found}); do not use this folder"
            )
        self._report("no overlap with " + (", ".join(found) or "anything: no test set was named"))
        return found


def _texts(table: pa.Table) -> list[pa.ChunkedArray]:
    return [table[name] for name in ("text", "prompt", "completion") if name in table.column_names]


def _sample(path: Path, num_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of rows from the beginning of a file, until `num_bytes` of text."""
    for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
        for row in batch.to_pylist():
            text = text_of(row)
            yield row["meta"]["language"], text
            num_bytes -= len(text.encode())
            if num_bytes <= 0:
                return


def _published(row: dict[str, Any]) -> dict[str, Any] | None:
    """Return a held-out pair with the fields of CodeXGLUE, or None if its evaluation would refuse it."""
    tokens = row["completion"].split()
    function = make_function(row["id"], "python", row["original"], row["docstring"], " ".join(tokens))
    if function.problem:
        return None
    path, _, name = row["id"].rpartition("#")
    return {
        "path": path,
        "func_name": name.rpartition(":")[0],
        "language": "python",
        "code": row["original"],
        "docstring": row["docstring"],
        "docstring_tokens": tokens,
    }


def _sources(corpus: ScannedCode) -> dict[str, Any]:
    """Return the number and size of the files read, and one digest of their ids and contents."""
    listing, files, num_bytes = sha256(), 0, 0
    for name, size, content in corpus.content_digests():
        listing.update(f"{name}\0{content.hex()}\n".encode())
        files, num_bytes = files + 1, num_bytes + size
    return {"files": files, "bytes": num_bytes, "sha256": listing.hexdigest()}


def _counts(corpus: ScannedCode) -> dict[str, Any]:
    """Return counts by outcome: of the files of each language, of functions with a docstring, and of texts."""
    languages = {}
    for language in np.unique(corpus.languages):
        of_it = corpus.languages == language
        reasons = Counter(corpus.reasons[of_it].tolist())
        kept = of_it & (corpus.reasons == "")
        languages[str(language)] = {
            "files": int(of_it.sum()),
            "kept": reasons.pop("", 0),
            "kept_bytes": int(corpus.bytes[kept].sum()),
            "left_out": dict(reasons.most_common()),
            "licences": dict(Counter(corpus.licences[of_it].tolist()).most_common()),
        }
    return {
        "files": languages,
        "functions": dict(corpus.pairs.most_common()),
        "texts_left_out": dict(corpus.row_reasons),
    }
