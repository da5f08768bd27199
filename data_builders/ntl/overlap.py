"""FLORES as the test set of a build: its index, and the search for its sentences in the written files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_builders.benchmarks.flores import Flores
from data_builders.ntl import fingerprints
from data_builders.ntl.fingerprints import OverlapIndex, marks, normalise
from data_builders.ntl.shards import IndexPlace
from data_builders.ntl.translation_text import sentences_in
from data_builders.progress import Progress
from data_builders.workers import Workers

METHOD = {
    "normalisation": "NFKC, case folded; letters, marks and digits only",
    "shingle_bytes": fingerprints.SHINGLE_BYTES,
    "min_shared_shingles": fingerprints.MIN_SHARED,
    "window": fingerprints.WINDOW,
}


def index_flores(flores: Flores, place: IndexPlace) -> dict[str, Any]:
    """Index dev and devtest unless the index is there; return what the manifest says about them."""
    if not OverlapIndex.is_built(place.folder):
        sentences = [text for splits in flores.sentences.values() for lines in splits.values() for text in lines]
        OverlapIndex.build(sentences, place.folder, place.min_share)
    return {
        "release": flores.release,
        "files": flores.files,
        "languages": len(flores.sentences),
        "sentences": sum(len(lines) for splits in flores.sentences.values() for lines in splits.values()),
        "method": {**METHOD, "near_duplicate": place.min_share},
    }


def count_overlaps(files: Sequence[Path], place: IndexPlace, workers: Workers, progress: Progress) -> dict[str, int]:
    """Search every sentence of the written files, as they read back; return how many are exact and near-duplicates."""
    jobs = [(file, group, place) for file in files for group in range(pq.ParquetFile(file).num_row_groups)]
    found = Counter({"exact": 0, "near": 0})
    for number, (exact, near) in enumerate(workers.map(_count, jobs), start=1):
        progress.step("row groups compared", number, len(jobs))
        found.update(exact=exact, near=near)
    return dict(found)


def _count(job: tuple[Path, int, IndexPlace]) -> tuple[int, int]:
    file, group, place = job
    with pq.ParquetFile(file) as parquet:
        # The same sentence stands in several rows.
        sentences = dict.fromkeys(_sentences(parquet.read_row_group(group).to_pylist()))
    normalised = [normalise(sentence) for sentence in sentences]
    found = OverlapIndex.open(place.folder, place.min_share).find(normalised, marks(normalised))
    return int((found == fingerprints.EXACT).sum()), int((found == fingerprints.NEAR).sum())


def _sentences(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        text = row.get("text") or row["prompt"] + row["completion"]
        yield from [text] if row["meta"]["kind"] == "text" else sentences_in(text)
