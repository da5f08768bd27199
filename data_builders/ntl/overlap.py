"""Exact and near-duplicate overlap with FLORES: an index of its sentences, and the search in it.

Text is normalised first: NFKC, case folding, letters, marks and digits only. Equal texts are exact overlap. A
near-duplicate shares at least a given share of the shorter text's shingles, the runs of 12 bytes in UTF-8 (12 Latin
letters, 6 Cyrillic ones, 4 of most Asian scripts), and at least 20 of them. Candidates are found by winnowing: of every
8 consecutive shingles only the one with the smallest hash is indexed; texts with 19 bytes in common share one of these.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_builders.benchmarks.flores import Flores
from data_builders.hashing import MURMUR, Hashes, contains, hash64, mixed, runs
from data_builders.ntl.translation_text import sentences_in
from data_builders.postings import Postings, open_arrays, save_arrays
from data_builders.row_files import Row, text_of

NONE, EXACT, NEAR = 0, 1, 2
SHINGLE_BYTES = 12
WINDOW = 8
MIN_SHARED = 20
# A shingle in more test sentences than this does not identify any of them, and is not indexed.
MAX_OWNERS = 200
# A candidate shares at least this times `min_share` of the shorter text's winnowed shingles.
_CANDIDATE = 0.4
_BATCH_BYTES = 1 << 19
_BASE = 0x100000001B3
_PARTS = ("marks", "hashes", "owners", "sizes", "text", "starts")
METHOD = {
    "normalisation": "NFKC, case folded; letters, marks and digits only",
    "shingle_bytes": SHINGLE_BYTES,
    "min_shared_shingles": MIN_SHARED,
    "window": WINDOW,
}


class _Kept(dict[int, int | None]):
    """A table for `str.translate` that keeps letters, marks (vowels in many scripts) and digits, and drops the rest."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else None
        return self[code]


_KEPT = _Kept()


def normalise(text: str) -> bytes:
    """Return the normalised text that is compared, in UTF-8."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_KEPT).encode()


def marks(normalised: Sequence[bytes]) -> Hashes:
    """Return the hash of each normalised text, (n,)."""
    return np.fromiter(map(hash64, normalised), np.uint64, len(normalised))


class OverlapIndex:
    """A searchable index of the sentences of a test set: arrays on disk that several processes share."""

    def __init__(self, parts: dict[str, NDArray[Any]], min_share: float) -> None:
        self._marks = parts["marks"]
        self._postings = Postings(parts["hashes"], parts["owners"], parts["sizes"])
        self._text = parts["text"]
        self._starts = parts["starts"]
        self._min_share = min_share

    @classmethod
    def build(cls, sentences: Sequence[str], folder: Path, min_share: float) -> OverlapIndex:
        """Index sentences, write the arrays into `folder` and open them there."""
        normalised = list(dict.fromkeys(map(normalise, sentences)))
        hashed, owned, first = [np.empty(0, np.uint64)], [np.empty(0, np.int32)], 0
        for batch in _batches(normalised):
            found, owners = _winnowed(batch)
            hashed.append(found)
            owned.append((owners + first).astype(np.int32))
            first += len(batch)
        postings = Postings.of(np.concatenate(hashed), np.concatenate(owned), len(normalised), MAX_OWNERS)
        lengths = np.fromiter(map(len, normalised), np.int64, len(normalised))
        parts: dict[str, NDArray[Any]] = {
            "marks": np.sort(marks(normalised)),
            "hashes": postings.hashes,
            "owners": postings.owners,
            "sizes": postings.sizes,
            "text": np.frombuffer(b"".join(normalised), np.uint8),
            "starts": np.concatenate([[0], np.cumsum(lengths)]),
        }
        save_arrays(parts, folder)
        return cls.open(folder, min_share)

    @classmethod
    def open(cls, folder: Path, min_share: float) -> OverlapIndex:
        """Memory-map the arrays of an index that was built before."""
        return cls(open_arrays(folder, _PARTS), min_share)

    @classmethod
    def is_built(cls, folder: Path) -> bool:
        """Tell whether `folder` holds an index."""
        return all((folder / f"{name}.npy").exists() for name in _PARTS)

    def find(self, normalised: Sequence[bytes], hashed: Hashes) -> NDArray[np.int8]:
        """Return NONE, EXACT or NEAR for each normalised text; `hashed` are their `marks`. Empty texts are NONE."""
        found = np.full(len(normalised), NONE, np.int8)
        first = 0
        for batch in _batches(normalised):
            found[first : first + len(batch)][self._near(batch)] = NEAR
            first += len(batch)
        is_exact = contains(self._marks, hashed) & np.fromiter(map(bool, normalised), np.bool_, len(normalised))
        found[is_exact] = EXACT
        return found

    def _near(self, batch: Sequence[bytes]) -> list[int]:
        hashes, owners = _winnowed(batch)
        total = np.bincount(owners, minlength=len(batch))
        ours, theirs, shared = self._postings.shared(hashes, owners)
        fewest = np.minimum(total[ours], self._postings.sizes[theirs])
        near: set[int] = set()
        is_candidate = shared >= _CANDIDATE * self._min_share * fewest
        for our, their in zip(ours[is_candidate].tolist(), theirs[is_candidate].tolist(), strict=True):
            if our not in near and self._shares_enough(batch[our], their):
                near.add(our)
        return sorted(near)

    def _shares_enough(self, ours: bytes, their_index: int) -> bool:
        theirs = self._text[self._starts[their_index] : self._starts[their_index + 1]]
        one, other = (np.unique(_shingles(text)) for text in (np.frombuffer(ours, np.uint8), theirs))
        shared = len(np.intersect1d(one, other, assume_unique=True))
        return shared >= max(MIN_SHARED, self._min_share * min(len(one), len(other)))


@dataclass(frozen=True)
class IndexPlace:
    """The folder of the test set's index, and the share of shingles from which sentences are near-duplicates."""

    folder: Path
    min_share: float


def open_index(place: IndexPlace | None) -> OverlapIndex | None:
    """Open the index of the test set in this process; None if nothing is compared."""
    return None if place is None else OverlapIndex.open(place.folder, place.min_share)


def index_flores(flores: Flores, place: IndexPlace) -> dict[str, Any]:
    """Index dev and devtest unless the index exists; return their entry in the manifest."""
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


def count_overlaps(index: OverlapIndex | None, rows: Sequence[Row]) -> Mapping[str, int]:
    """Search every sentence of rows of written files; return the numbers of exact and near-duplicates."""
    assert index is not None
    # A sentence can occur in several rows: search it once.
    normalised = [normalise(sentence) for sentence in dict.fromkeys(_sentences(rows))]
    found = index.find(normalised, marks(normalised))
    return {"exact": int((found == EXACT).sum()), "near": int((found == NEAR).sum())}


def _sentences(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        yield from [text_of(row)] if row["meta"]["kind"] == "text" else sentences_in(text_of(row))


def _shingles(text: NDArray[np.uint8]) -> Hashes:
    """Return the hash of the shingle that begins at each byte, (bytes - SHINGLE_BYTES + 1,)."""
    # Mixed, since the smallest hash of a window is taken: a small change of the text has to change all bits.
    return mixed(runs(text, SHINGLE_BYTES, _BASE), MURMUR)


def _winnowed(batch: Sequence[bytes]) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the winnowed shingles of texts, and the index of each shingle's text."""
    lengths = np.fromiter(map(len, batch), np.int64, len(batch))
    hashes = _shingles(np.frombuffer(b"".join(batch), np.uint8))
    owners = np.repeat(np.arange(len(batch)), lengths)[: len(hashes)]
    # Bytes from each place to the end of its text: a longer shingle or window would reach into the next text.
    left = np.cumsum(lengths)[owners] - np.arange(len(hashes))
    smallest = hashes
    for step in (1, 2, 4):
        smallest = np.minimum(smallest, np.concatenate([smallest[step:], np.repeat(smallest[-1:], step)]))
    has_window = left >= SHINGLE_BYTES + WINDOW - 1
    # Texts too short for a window keep all their shingles.
    is_short = (left >= SHINGLE_BYTES) & (lengths[owners] < SHINGLE_BYTES + WINDOW - 1)
    chosen = np.where(is_short, hashes, smallest)[has_window | is_short]
    owners = owners[has_window | is_short]
    # Neighbouring windows mostly choose the same shingle: keep it once.
    is_new = np.ones(len(chosen), np.bool_)
    is_new[1:] = (chosen[1:] != chosen[:-1]) | (owners[1:] != owners[:-1])
    return chosen[is_new], owners[is_new]


def _batches(normalised: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Split texts into batches of about `_BATCH_BYTES`."""
    lengths = np.fromiter(map(len, normalised), np.int64, len(normalised))
    batch = np.cumsum(lengths) // _BATCH_BYTES
    bounds = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(normalised)]
    return [normalised[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
