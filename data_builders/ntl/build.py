"""Build the data of the paper's low-resource language task: text and translations for both models, and D_C."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from data_builders.benchmarks.flores import Flores, read_flores
from data_builders.bpe_tokenizer import load_plain_tokenizer, tokenizer_at_hand
from data_builders.build import BuildFolder, Shard, count_in_tables, run_build
from data_builders.errors import UserError
from data_builders.ntl.config import CorporaConfig, NTLDataConfig
from data_builders.ntl.corpora import Corpora, open_corpora, resolve
from data_builders.ntl.overlap import IndexPlace, OverlapIndex, count_overlaps, index_flores, open_index
from data_builders.ntl.rows import Counts
from data_builders.ntl.shards import make_shards
from data_builders.ntl.tokenizer import write_tokenizer
from data_builders.ntl.translation_text import FORMAT
from data_builders.ntl.writer import Writer, described
from data_builders.progress import Progress
from data_builders.workers import Workers, num_workers

__all__ = ["CorporaConfig", "NTLDataConfig", "build"]

BUILDER = "ntl"
MODELS = ("aug", "anchor")
_REMOVED = ("exact", "near", "removed_rows")


def build(
    config: NTLDataConfig, out: Path, progress: Progress | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Build the data folder `out`, unless the same build is already there, and return its manifest.

    An interrupted build continues from its shards. The bytes do not depend on the number of `workers` (None: one per
    core).

    Raises:
        UserError: the folder holds something else, a corpus or FLORES is missing or damaged, or settings cannot be met.
    """
    _check_settings(config)
    count = num_workers(workers)
    identity = {"builder": BUILDER, "format": FORMAT, "config": asdict(config)}
    return run_build(identity, out, progress, lambda folder: _make(config, folder, count))


def check(config: NTLDataConfig) -> None:
    """Raise UserError if corpora, FLORES or a local tokenizer cannot be used, without building anything."""
    _check_settings(config)
    _open_flores(config, _open_corpora(config))
    if config.tokenizer is not None:
        tokenizer_at_hand(config.tokenizer)


def _check_settings(config: NTLDataConfig) -> None:
    if not config.aug.parallel and not config.aug.monolingual:
        raise UserError("aug.parallel: name the corpora of the low-resource languages, such as a folder of NLLB-Seed")
    if config.check_overlap and not config.flores:
        raise UserError("flores: name FLORES-200, which the data must not overlap with; or set check_overlap=false")


def _make(config: NTLDataConfig, folder: BuildFolder, num_workers: int) -> dict[str, Any]:
    """Make the shards, write every file, search the files for the test set, and return the manifest's entries."""
    corpora = _open_corpora(config)
    named = None if config.tokenizer is None else load_plain_tokenizer(config.tokenizer)
    flores = _open_flores(config, corpora)
    sources = {name: opened.files for name, opened in corpora.items()}
    folder.claim_work({**sources, "flores": flores.files if flores else {}})
    place = IndexPlace(folder.work / "overlap", config.near_duplicate) if flores else None
    compared = _index(flores, place, folder.progress)
    with Workers(num_workers, partial(open_index, place)) as workers:
        shards, counts = {}, {}
        for name, opened in corpora.items():
            shards[name] = make_shards(name, opened, config, folder, workers)
            counts[name] = _summed(shards[name])
            overlap = f"{counts[name]['removed_rows']:,} aligned rows overlap" if place else "not compared"
            if shards[name]:
                folder.progress.note(f"{name}: {len(opened.corpora)} corpora read; with FLORES: {overlap}")
        writer = Writer(config, folder, shards, _tested_languages(corpora["aug"]))
        for name in MODELS:
            writer.write_model(name)
            _require_every_language(name, corpora[name], writer)
        writer.write_composition()
        writer.write_tests()
        tokenizer = write_tokenizer(config, named, folder, writer.counts)
        left = _count_left(folder, workers) if compared else {}
    removed = {name: {key: counts[name][key] for key in counts[name] if key in _REMOVED} for name in MODELS}
    found = {"checked": True, "flores": compared, "removed": removed, "left": left}
    return {
        "sources": sources,
        "files": folder.files,
        "counts": {name: described(of_file) for name, of_file in writer.counts.items()},
        "sentences": counts,
        "held_out": writer.held_out,
        "overlap": found if compared else {"checked": False},
        "tokenizer": tokenizer,
    }


def _open_corpora(config: NTLDataConfig) -> dict[str, Corpora]:
    """Open the corpora of each model; raises UserError if one cannot be used."""
    corpora = {
        "aug": open_corpora("aug", config.aug, config.data_folder, config.unseen_languages),
        "anchor": open_corpora("anchor", config.anchor, config.data_folder),
    }
    _check_unseen(config.unseen_languages, corpora)
    return corpora


def _check_unseen(unseen: Sequence[str], corpora: Mapping[str, Corpora]) -> None:
    """Raise UserError if a model is trained on a language that is only to be tested."""
    for name, opened in corpora.items():
        for code in unseen if opened.corpora else ():
            if code in (*opened.languages, *opened.text_languages, *opened.pivots):
                raise UserError(f"unseen_languages: {name} is trained on {code}; leave it out here or there")


def _open_flores(config: NTLDataConfig, corpora: Mapping[str, Corpora]) -> Flores | None:
    """Read FLORES in the languages asked for and in all languages of the data; None if nothing is compared."""
    if not config.check_overlap or config.flores is None:
        return None
    path = Path(resolve("flores", config.flores, config.data_folder))
    of_data = [code for opened in corpora.values() for corpus in opened.corpora for code in corpus.languages]
    return read_flores(path, config.flores_languages, always=tuple(dict.fromkeys(of_data)))


def _index(flores: Flores | None, place: IndexPlace | None, progress: Progress) -> dict[str, Any] | None:
    if flores is None or place is None:
        return None
    compared = index_flores(flores, place)
    progress.note(f"FLORES: {compared['sentences']:,} sentences of {compared['languages']} languages to compare with")
    return compared


def _tested_languages(corpora: Corpora) -> list[str]:
    """Return the aug's languages that have translations to test."""
    tested = {source for each in corpora.corpora for source, _ in corpora.test_pairs(each.languages)}
    return [code for code in corpora.languages if code in tested]


def _require_every_language(name: str, corpora: Corpora, writer: Writer) -> None:
    there = {code for _, *codes in writer.counts.get(f"{name}_train", ()) for code in codes}
    for code in (*corpora.languages, *corpora.text_languages) if corpora.corpora else ():
        if code not in there:
            raise UserError(
                f"{name}: no training rows of {code} are left: its sentences are missing, too long, held out or "
                "overlap with FLORES; add a corpus, or leave the language out"
            )


def _count_left(folder: BuildFolder, workers: Workers[OverlapIndex | None]) -> dict[str, int]:
    """Search the written files for the test set; raises UserError if a sentence of it is found."""
    left = {"exact": 0, "near": 0} | count_in_tables(folder.tables, count_overlaps, workers, folder.progress)
    if any(left.values()):
        raise UserError(f"{folder.path}: sentences of FLORES in the written files ({left}); do not use this folder")
    folder.progress.note("overlap with FLORES in the written files: 0")
    return left


def _summed(shards: Iterable[Shard]) -> dict[str, Any]:
    """Sum the counts of all shards; counts by language leave out zeros."""
    total: dict[str, Any] = {"rows": 0, "removed_rows": 0}
    for shard in shards:
        counts = Counts(**shard.counts)
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
