"""FLORES as the test set of a build: its index, and the search for its sentences in the written files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_builders import overlap
from data_builders.flores import read_flores
from data_builders.ntl_shards import IndexPlace, worker_pool
from data_builders.overlap import OverlapIndex, mark, marks, normalise
from data_builders.translation_text import sentences_in

METHOD = {
    "normalisation": "NFKC, case folded; letters, marks and digits only",
    "shingle_bytes": overlap.SHINGLE_BYTES,
    "min_shared_shingles": overlap.MIN_SHARED,
    "window": overlap.WINDOW,
}
# Rows that one process searches at a time.
_BATCH_ROWS = 8192


def index_flores(path: Path, languages: Sequence[str], place: IndexPlace) -> dict[str, Any]:
    """Index dev and devtest unless the index is there; return what the manifest says about them."""
    flores = read_flores(path, languages)
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


def count_overlaps(files: Sequence[Path], place: IndexPlace, workers: int) -> dict[str, int]:
    """Search every sentence of the written files, as they read back; return how many are exact and near-duplicates."""
    jobs = [(file, group, place) for file in files for group in range(pq.ParquetFile(file).num_row_groups)]
    if workers == 1:
        _SEEN.clear()
        return _summed(map(_count, jobs))
    with worker_pool(workers, place) as pool:
        return _summed(pool.map(_count, jobs))


def _summed(found: Iterable[tuple[int, int]]) -> dict[str, int]:
    exact, near = 0, 0
    for some_exact, some_near in found:
        exact, near = exact + some_exact, near + some_near
    return {"exact": exact, "near": near}


def _count(job: tuple[Path, int, IndexPlace]) -> tuple[int, int]:
    file, group, place = job
    index = OverlapIndex.open(place.folder, place.min_share)
    exact, near = 0, 0
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[group]):
            normalised = [normalise(sentence) for sentence in _unseen(_sentences(batch.to_pylist()))]
            found = index.find(normalised, marks(normalised))
            exact += int((found == overlap.EXACT).sum())
            near += int((found == overlap.NEAR).sum())
    return exact, near


# The same sentence stands in several rows and files: hashes of those that this process found nothing in.
_SEEN: set[int] = set()
_MOST_SEEN = 1_000_000


def _unseen(sentences: Iterable[str]) -> Iterator[str]:
    if len(_SEEN) > _MOST_SEEN:
        _SEEN.clear()
    for sentence in sentences:
        hashed = mark(sentence.encode())
        if hashed not in _SEEN:
            _SEEN.add(hashed)
            yield sentence


def _sentences(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        text = row.get("text") or row["prompt"] + row["completion"]
        yield from [text] if row["meta"]["kind"] == "text" else sentences_in(text)
