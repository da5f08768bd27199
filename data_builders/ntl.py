"""The data of the paper's second task: text and translations of low-resource languages, for every model and D_C."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_builders.corpus import Corpus
from data_builders.errors import DataError
from data_builders.kv_keys import load_tokenizer
from data_builders.manifest import close_folder, file_entry, open_folder, write_json, write_parquet
from data_builders.ntl_config import CorporaConfig, NTLDataConfig
from data_builders.ntl_corpora import Corpora, open_corpora, resolve
from data_builders.ntl_files import SCHEMAS, as_training, choose, described, held_out_marks, sample, shard_rows
from data_builders.ntl_overlap import count_overlaps, index_flores
from data_builders.ntl_rows import Counts, RowPlan
from data_builders.ntl_shards import IndexPlace, Shard, default_workers, make_shards
from data_builders.ntl_tokenizer import balanced, coverage, require_coverage, train_tokenizer
from data_builders.overlap import Hashes
from data_builders.translation_text import FORMAT

__all__ = ["CorporaConfig", "NTLDataConfig", "build"]

BUILDER = "ntl"
MODELS = ("aug", "anchor")
WORK = "work"
TOKENIZER = "tokenizer"
# Rows of each file that tokens are counted in.
TOKEN_SAMPLE = 2000
# Sentences of each language that a tokenizer is tried on.
COVERAGE_SAMPLE = 300
# Each file draws from a stream of its own, so that a change to one leaves the others' bytes alone.
_STREAMS = ("aug_validation", "anchor_validation", "dc_train", "dc_validation")

Progress = Callable[[str], None]


def build(
    config: NTLDataConfig, out: Path, progress: Progress | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Build the data folder `out` and return its manifest; does nothing where that build is already there.

    A build that was interrupted goes on from the shards it had made. `workers` processes (None: one a processor)
    give the same bytes as one.

    Raises:
        DataError: the folder holds something else, a corpus or FLORES is missing or damaged, or the settings cannot be
            met.
    """
    report = progress or (lambda line: None)
    if not config.aug.parallel and not config.aug.monolingual:
        raise DataError("aug.parallel: name the corpora of the low-resource languages, such as a folder of NLLB-Seed")
    if config.check_overlap and not config.flores:
        raise DataError("flores: name FLORES-200, which the data must not overlap with; or set check_overlap=false")
    identity = {"builder": BUILDER, "format": FORMAT, "config": asdict(config)}
    finished = open_folder(out, identity)
    if finished is not None:
        report(f"{out}: already built")
        return finished
    return _Build(config, out, report, workers or default_workers()).run(identity)


class _Build:
    """One build under way: what its steps share."""

    def __init__(self, config: NTLDataConfig, out: Path, report: Progress, workers: int) -> None:
        self.config = config
        self.out = out
        self.work = out / WORK
        self.report = report
        self.workers = workers
        self.rngs = {name: np.random.default_rng([config.seed, i]) for i, name in enumerate(_STREAMS)}
        self.corpora = {name: open_corpora(name, getattr(config, name), config.data_folder) for name in MODELS}
        self.place = IndexPlace(self.work / "overlap", config.near_duplicate) if config.check_overlap else None
        self.files: dict[str, dict[str, Any]] = {}
        self.counts: dict[str, Counter[tuple[str, str, str]]] = {}

    def run(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Make the shards, write every file, search them for the test set, and finish the folder."""
        self._claim_work()
        flores = self._index_flores()
        shards = {name: self._make_shards(name) for name in MODELS}
        held_out = np.union1d(*(held_out_marks(shards[name]) for name in MODELS))
        for name in MODELS:
            self._write_model(name, shards[name], held_out)
        self._write_composition(shards, held_out)
        tokenizer = self._tokenizer()
        overlap = self._overlap(flores, shards)
        manifest = close_folder(
            self.out,
            identity
            | {
                "seed": self.config.seed,
                "versions": {"numpy": np.__version__, "pyarrow": pa.__version__},
                "sources": {name: self.corpora[name].files for name in MODELS},
                "files": self.files,
                "counts": {name: described(counts) for name, counts in self.counts.items()},
                "sentences": {name: _summed(shards[name]) for name in MODELS},
                "overlap": overlap,
                "tokenizer": tokenizer,
            },
        )
        shutil.rmtree(self.work)
        return manifest

    def _claim_work(self) -> None:
        """Keep the shards of an interrupted build, unless what they were made of has changed."""
        sources = {name: self.corpora[name].files for name in MODELS}
        record = self.work / "sources.json"
        if self.work.exists() and not (record.exists() and json.loads(record.read_text(encoding="utf-8")) == sources):
            self.report("the corpora have changed since the build was interrupted: starting again")
            shutil.rmtree(self.work)
        self.work.mkdir(exist_ok=True)
        write_json(record, sources)

    def _index_flores(self) -> dict[str, Any] | None:
        if self.place is None or self.config.flores is None:
            return None
        path = Path(resolve("flores", self.config.flores, self.config.data_folder))
        described = index_flores(path, self.config.flores_languages, self.place)
        self.report(
            f"FLORES: {described['sentences']:,} sentences of {described['languages']} languages to compare with"
        )
        return described

    def _make_shards(self, name: str) -> list[Shard]:
        corpora = self.corpora[name]
        shards = make_shards(
            corpora, partial(self._plan, corpora), self.work / name, self.place, self.workers, self.report
        )
        if shards:
            removed = sum(shard.counts.removed_rows for shard in shards)
            overlap = f"{removed:,} aligned rows overlap" if self.place else "not compared"
            self.report(f"{name}: {len(corpora.corpora)} corpora read; with FLORES: {overlap}")
        return shards

    def _plan(self, corpora: Corpora, corpus: Corpus) -> RowPlan:
        config = self.config
        pairs = corpora.pairs(corpus.languages)
        shots = (config.max_shots, config.max_characters, config.validation_fraction, config.seed)
        return RowPlan(corpus.name, corpora.text_languages, tuple(pairs), corpora.pivots, *shots)

    def _write_model(self, name: str, shards: list[Shard], held_out: Hashes) -> None:
        if not shards:
            return
        columns = self.config.train_rows
        self._write(f"{name}_train", shard_rows(shards, "train", held_out), columns)
        self._require_every_language(name)
        chosen = self._choose(f"{name}_validation", _num_rows(shards), self.config.num_validation_rows)
        self._write(f"{name}_validation", sample(shard_rows(shards, "validation"), chosen), columns)

    def _require_every_language(self, name: str) -> None:
        counts, corpora = self.counts[f"{name}_train"], self.corpora[name]
        there = {code for _, source, target in counts for code in (source, target)}
        for code in (*corpora.languages, *corpora.text_languages):
            if code not in there:
                raise DataError(
                    f"{name}: no training rows of {code} are left: its sentences are missing, too long, held out or "
                    "overlap with FLORES; add a corpus, or leave the language out"
                )

    def _write_composition(self, shards: dict[str, list[Shard]], held_out: Hashes) -> None:
        """Write D_C, a share of the aug's rows and of the anchor's, and its validation file in the same proportion."""
        config, kinds = self.config, self.config.composition_kinds
        share = config.high_resource_share if shards["anchor"] else 0.0
        totals = {
            name: sum(rows for (kind, *_), rows in self.counts[f"{name}_train"].items() if kind in kinds)
            for name in MODELS
            if shards[name]
        }
        rows = max(1, round(config.composition_fraction * totals["aug"]))
        self._write_mixture("dc_train", shards, "train", totals, rows, share, held_out)
        totals = {
            name: sum(table.num_rows for table in shard_rows(shards[name], "validation", kinds=kinds))
            for name in totals
        }
        rows = min(totals["aug"], round(config.num_validation_rows * (1 - share)))
        self._write_mixture("dc_validation", shards, "validation", totals, rows, share, None)

    def _write_mixture(
        self,
        name: str,
        shards: dict[str, list[Shard]],
        split: str,
        totals: dict[str, int],
        rows: int,
        share: float,
        held_out: Hashes | None,
    ) -> None:
        """Write `rows` of the aug's rows, and so many of the anchor's that they are `share` of all."""
        wanted = {"aug": rows, "anchor": round(rows * share / (1 - share))}

        def tables() -> Iterator[pa.Table]:
            for model in totals:
                found = shard_rows(shards[model], split, held_out, self.config.composition_kinds)
                yield from sample(found, self._choose(name, totals[model], wanted[model]))

        self._write(name, tables(), self.config.composition_rows)

    def _choose(self, name: str, total: int, rows: int) -> NDArray[np.int64]:
        return choose(self.rngs[name], total, rows)

    def _write(self, name: str, tables: Iterable[pa.Table], columns: str) -> None:
        counts = self.counts[name] = Counter()
        path = self.out / f"{name}.parquet"
        rows = write_parquet(path, as_training(tables, columns, counts), SCHEMAS[columns])
        if not rows:
            raise DataError(f"{path.name}: no rows are left for it; use more data, or a larger validation_fraction")
        self.files[path.name] = file_entry(path, rows)
        self.report(f"{path.name}: {rows:,} rows")

    def _tokenizer(self) -> dict[str, Any]:
        config = self.config
        training = [name for name in ("aug_train", "anchor_train") if name in self.counts]
        languages = {target for name in training for _, _, target in self.counts[name]}
        if config.tokenizer is None:
            rows = (row for name in training for row in self._texts(name))
            tokenizer: Any = train_tokenizer(balanced(rows, config.tokenizer_bytes, len(languages)), config.vocab_size)
            name, folder = f"vocab_size: {config.vocab_size}", TOKENIZER
        else:
            tokenizer, name, folder = load_tokenizer(config.tokenizer), f"tokenizer: {config.tokenizer}", None
        samples: dict[str, list[str]] = {}
        tokens = {}
        for file in self.counts:
            texts = self._sampled(file)
            encoded = tokenizer([text for _, text in texts], add_special_tokens=False)["input_ids"]
            rows_there = self.files[f"{file}.parquet"]["rows"]
            tokens[file] = round(sum(map(len, encoded)) / len(encoded) * rows_there)
            for language, text in texts:
                sample_of = samples.setdefault(language, [])
                if len(sample_of) < COVERAGE_SAMPLE:
                    sample_of.append(text.rpartition(" sentence: ")[2])
        covered = coverage(tokenizer, samples)
        require_coverage(name, covered, config.max_tokens_per_character)
        if folder is not None:
            tokenizer.save_pretrained(self.out / folder)
            for path in sorted((self.out / folder).iterdir()):
                self.files[f"{folder}/{path.name}"] = file_entry(path)
        self.report(f"tokenizer: {len(tokenizer):,} tokens; {sum(tokens.values()):,} tokens in all files, about")
        return {
            "folder": folder,
            "name": config.tokenizer,
            "size": len(tokenizer),
            "tokens_about": tokens,
            "coverage": dict(sorted(covered.items())),
        }

    def _texts(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield (language that is written last, whole text) of the rows of a file."""
        with pq.ParquetFile(self.out / f"{name}.parquet") as parquet:
            # One after the other: read as a whole, a file's row groups add up in memory.
            for group in range(parquet.num_row_groups):
                for row in parquet.read_row_group(group).to_pylist():
                    yield row["meta"]["target"], row.get("text") or row["prompt"] + row["completion"]

    def _sampled(self, name: str) -> list[tuple[str, str]]:
        every = -(-self.files[f"{name}.parquet"]["rows"] // TOKEN_SAMPLE)
        return [row for number, row in enumerate(self._texts(name)) if number % every == 0]

    def _overlap(self, flores: dict[str, Any] | None, shards: dict[str, list[Shard]]) -> dict[str, Any]:
        """Search the written files for the test set; raises where a sentence of it is found."""
        if flores is None or self.place is None:
            return {"checked": False}
        paths = [self.out / f"{name}.parquet" for name in self.counts]
        left = count_overlaps(paths, self.place, self.workers)
        if any(left.values()):
            raise DataError(f"{self.out}: sentences of FLORES in the written files ({left}); do not use this folder")
        removed = {
            name: {key: counted for key, counted in _summed(shards[name]).items() if key in _REMOVED} for name in MODELS
        }
        self.report("overlap with FLORES in the written files: 0")
        return {"checked": True, "flores": flores, "removed": removed, "left": left}


_REMOVED = ("exact", "near", "removed_rows")


def _num_rows(shards: Iterable[Shard]) -> int:
    return sum(shard.num_rows("validation") for shard in shards)


def _summed(shards: Iterable[Shard]) -> dict[str, Any]:
    """Add up what was counted: numbers, and numbers by language that are not zero."""
    total: dict[str, Any] = {"rows": 0, "removed_rows": 0}
    for shard in shards:
        counts = shard.counts
        for name in (field.name for field in fields(Counts)):
            value = getattr(counts, name)
            if isinstance(value, int):
                total[name] += value
                continue
            by_language = total.setdefault(name, {})
            for code, number in value.items():
                if number:
                    by_language[code] = by_language.get(code, 0) + number
    return total
