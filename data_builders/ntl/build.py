"""The data of the paper's second task: text and translations of low-resource languages, for every model and D_C."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_builders.benchmarks.flores import Flores, read_flores
from data_builders.bpe_tokenizer import save_tokenizer
from data_builders.errors import UserError
from data_builders.kv.keys import load_tokenizer, tokenizer_at_hand
from data_builders.manifest import close_folder, file_entry, open_folder
from data_builders.ntl.config import CorporaConfig, NTLDataConfig
from data_builders.ntl.corpora import Corpora, open_corpora, resolve
from data_builders.ntl.corpus import Corpus
from data_builders.ntl.files import described
from data_builders.ntl.overlap import count_overlaps, index_flores
from data_builders.ntl.rows import Counts, RowPlan
from data_builders.ntl.shards import IndexPlace, Shard, make_shards, open_index
from data_builders.ntl.tokenizer import train_tokenizer, tried
from data_builders.ntl.translation_text import FORMAT
from data_builders.ntl.writer import Writer
from data_builders.progress import Progress
from data_builders.values import read_json, write_json
from data_builders.workers import Workers, num_workers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CorporaConfig", "NTLDataConfig", "build"]

BUILDER = "ntl"
MODELS = ("aug", "anchor")
WORK = "work"
TOKENIZER = "tokenizer"


def build(
    config: NTLDataConfig, out: Path, progress: Progress | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Build the data folder `out` and return its manifest; does nothing where that build is already there.

    A build that was interrupted goes on from the shards it had made. `workers` processes (None: one a processor)
    give the same bytes as one.

    Raises:
        UserError: the folder holds something else, a corpus or FLORES is missing or damaged, or the settings cannot be
            met.
    """
    progress = progress or Progress()
    _check_settings(config)
    count = num_workers(workers)
    identity = {"builder": BUILDER, "format": FORMAT, "config": asdict(config)}
    finished = open_folder(out, identity)
    if finished is not None:
        shutil.rmtree(out / WORK, ignore_errors=True)  # of a build that was killed at its very end
        progress.note(f"{out}: already built")
        return finished
    return _Build(config, out, progress, count).run(identity)


def check(config: NTLDataConfig) -> None:
    """Raise UserError where corpora, FLORES or a tokenizer that is here cannot be used, without building anything."""
    _check_settings(config)
    _Build(config, Path(), Progress(), 1).open_flores()
    if config.tokenizer is not None:
        tokenizer_at_hand(config.tokenizer)


def _check_settings(config: NTLDataConfig) -> None:
    if not config.aug.parallel and not config.aug.monolingual:
        raise UserError("aug.parallel: name the corpora of the low-resource languages, such as a folder of NLLB-Seed")
    if config.check_overlap and not config.flores:
        raise UserError("flores: name FLORES-200, which the data must not overlap with; or set check_overlap=false")


class _Build:
    """One build under way: what its steps share."""

    def __init__(self, config: NTLDataConfig, out: Path, progress: Progress, num_workers: int) -> None:
        self.config = config
        self.out = out
        self.work = out / WORK
        self.progress = progress
        self.report = progress.note
        self.num_workers = num_workers
        self.corpora = {
            "aug": open_corpora("aug", config.aug, config.data_folder, config.unseen_languages),
            "anchor": open_corpora("anchor", config.anchor, config.data_folder),
        }
        _check_unseen(config.unseen_languages, self.corpora)
        self.place = IndexPlace(self.work / "overlap", config.near_duplicate) if config.check_overlap else None

    def run(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Make the shards, write every file, search them for the test set, and finish the folder."""
        named = None if self.config.tokenizer is None else load_tokenizer(self.config.tokenizer)
        flores = self.open_flores()
        self._claim_work(flores)
        described_flores = self._index_flores(flores)
        with Workers(self.num_workers, partial(open_index, self.place)) as workers:
            shards = {name: self._make_shards(name, workers) for name in MODELS}
            writer = Writer(self.config, self.out, shards, self._tested_languages(), self.report)
            for name in MODELS:
                writer.write_model(name)
                self._require_every_language(name, writer)
            writer.write_composition()
            writer.write_tests()
            tokenizer = self._tokenizer(named, writer)
            overlap = self._overlap(described_flores, shards, writer, workers)
        manifest = close_folder(
            self.out,
            identity
            | {
                "seed": self.config.seed,
                "versions": {"numpy": np.__version__, "pyarrow": pa.__version__},
                "sources": {name: self.corpora[name].files for name in MODELS},
                "files": writer.files,
                "counts": {name: described(counts) for name, counts in writer.counts.items()},
                "sentences": {name: _summed(shards[name]) for name in MODELS},
                "held_out": writer.held_out,
                "overlap": overlap,
                "tokenizer": tokenizer,
            },
        )
        shutil.rmtree(self.work)
        return manifest

    def _tested_languages(self) -> list[str]:
        """Return the aug's languages of which there are translations."""
        corpora = self.corpora["aug"]
        tested = {source for each in corpora.corpora for source, _ in corpora.test_pairs(each.languages)}
        return [code for code in corpora.languages if code in tested]

    def open_flores(self) -> Flores | None:
        """Read the test set in the languages that are asked for, and in those of the data in any case."""
        if self.place is None or self.config.flores is None:
            return None
        path = Path(resolve("flores", self.config.flores, self.config.data_folder))
        of_data = [code for name in MODELS for corpus in self.corpora[name].corpora for code in corpus.languages]
        return read_flores(path, self.config.flores_languages, always=tuple(dict.fromkeys(of_data)))

    def _claim_work(self, flores: Flores | None) -> None:
        """Keep the shards of an interrupted build, unless what they were made of has changed."""
        sources = {name: self.corpora[name].files for name in MODELS} | {"flores": flores.files if flores else {}}
        record = self.work / "sources.json"
        if record.exists() and read_json(record) != sources:
            self.report("the corpora or FLORES have changed since the build was interrupted: starting again")
        elif record.exists():
            return
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        write_json(record, sources)

    def _index_flores(self, flores: Flores | None) -> dict[str, Any] | None:
        if self.place is None or flores is None:
            return None
        described = index_flores(flores, self.place)
        self.report(
            f"FLORES: {described['sentences']:,} sentences of {described['languages']} languages to compare with"
        )
        return described

    def _make_shards(self, name: str, workers: Workers) -> list[Shard]:
        corpora = self.corpora[name]
        shards = make_shards(corpora, partial(self._plan, corpora), self.work / name, workers, self.progress)
        if shards:
            removed = sum(shard.counts.removed_rows for shard in shards)
            overlap = f"{removed:,} aligned rows overlap" if self.place else "not compared"
            self.report(f"{name}: {len(corpora.corpora)} corpora read; with FLORES: {overlap}")
        return shards

    def _plan(self, corpora: Corpora, corpus: Corpus) -> RowPlan:
        config = self.config
        pairs = corpora.pairs(corpus.languages)
        return RowPlan(
            corpus.name,
            corpora.text_languages,
            tuple(pairs),
            tuple(corpora.test_pairs(corpus.languages)) if config.test_fraction else (),
            corpora.pivots,
            config.max_shots,
            config.max_characters,
            config.validation_fraction,
            config.composition_unseen,
            config.test_fraction,
            config.seed,
        )

    def _require_every_language(self, name: str, writer: Writer) -> None:
        corpora = self.corpora[name]
        there = {code for _, *codes in writer.counts.get(f"{name}_train", ()) for code in codes}
        for code in (*corpora.languages, *corpora.text_languages) if corpora.corpora else ():
            if code not in there:
                raise UserError(
                    f"{name}: no training rows of {code} are left: its sentences are missing, too long, held out or "
                    "overlap with FLORES; add a corpus, or leave the language out"
                )

    def _tokenizer(self, named: PreTrainedTokenizerBase | None, writer: Writer) -> dict[str, Any]:
        """Train a tokenizer, unless there is one, and return what the manifest says about it."""
        self.progress.step("tokenizer", 0, 1)
        training = [name for name in ("aug_train", "anchor_train") if name in writer.counts]
        languages = sorted({target for name in training for _, _, target in writer.counts[name]})
        trained_on = [self.out / f"{name}.parquet" for name in training]
        tokenizer = named or train_tokenizer(self.config, trained_on, languages)
        files = {self.out / name: entry["rows"] for name, entry in writer.files.items()}
        tokens, covered = tried(self.config, tokenizer, files)
        if named is None:
            for path in save_tokenizer(tokenizer, self.out / TOKENIZER):
                writer.files[f"{TOKENIZER}/{path.name}"] = file_entry(path)
        self.report(f"tokenizer: {len(tokenizer):,} tokens; {sum(tokens.values()):,} tokens in all files, about")
        return {
            "folder": TOKENIZER if named is None else None,
            "name": self.config.tokenizer,
            "size": len(tokenizer),
            "tokens_about": tokens,
            "coverage": covered,
        }

    def _overlap(
        self, flores: dict[str, Any] | None, shards: dict[str, list[Shard]], writer: Writer, workers: Workers
    ) -> dict[str, Any]:
        """Search the written files for the test set; raises where a sentence of it is found."""
        if flores is None or self.place is None:
            return {"checked": False}
        left = count_overlaps(
            [self.out / f"{name}.parquet" for name in writer.counts], self.place, workers, self.progress
        )
        if any(left.values()):
            raise UserError(f"{self.out}: sentences of FLORES in the written files ({left}); do not use this folder")
        removed = {
            name: {key: counted for key, counted in _summed(shards[name]).items() if key in _REMOVED} for name in MODELS
        }
        self.report("overlap with FLORES in the written files: 0")
        return {"checked": True, "flores": flores, "removed": removed, "left": left}


def _check_unseen(unseen: Sequence[str], corpora: Mapping[str, Corpora]) -> None:
    """Raise UserError where a language that is to be tested only is among those that a model is trained on."""
    for name, opened in corpora.items():
        for code in unseen if opened.corpora else ():
            if code in (*opened.languages, *opened.text_languages, *opened.pivots):
                raise UserError(f"unseen_languages: {name} is trained on {code}; leave it out here or there")


_REMOVED = ("exact", "near", "removed_rows")


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
