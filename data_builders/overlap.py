"""Exact and near-duplicate overlap with a test set: an index of its sentences, and the search in it.

Text is compared after normalisation: NFKC, lower case, letters, marks and digits only. Equal texts are exact overlap. A
near-duplicate shares at least a given share of the shorter text's shingles, the runs of 12 bytes in UTF-8 (12 Latin
letters, 6 Cyrillic ones, 4 of most Asian scripts), and at least 20 of them. Candidates are found by winnowing: of every
8 consecutive shingles, the one with the smallest hash is in the index, so that texts with 19 bytes in common meet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_builders.manifest import atomic_path

NONE, EXACT, NEAR = 0, 1, 2
SHINGLE_BYTES = 12
WINDOW = 8
MIN_SHARED = 20
# A shingle of so many test sentences says nothing about any of them.
MAX_OWNERS = 200
# Share of the shorter text's winnowed shingles that a candidate has in common, relative to the asked share of all.
_CANDIDATE = 0.4
_BATCH_BYTES = 1 << 19
_PARTS = ("marks", "hashes", "owners", "sizes", "text", "starts")

Hashes = NDArray[np.uint64]


class _Kept(dict[int, int | None]):
    """What `str.translate` makes of each character: itself or nothing. Many scripts write vowels as marks."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else None
        return self[code]


_KEPT = _Kept()


def normalise(text: str) -> bytes:
    """Return what is compared of a text."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_KEPT).encode()


def mark(normalised: bytes) -> int:
    """Return a 64-bit hash of a normalised text, the same on every machine."""
    return int.from_bytes(blake2b(normalised, digest_size=8).digest(), "little")


def marks(normalised: Sequence[bytes]) -> Hashes:
    """Return the hash of each text."""
    return np.fromiter(map(mark, normalised), np.uint64, len(normalised))


class OverlapIndex:
    """Sentences of a test set, to search for; arrays on disk that several processes share."""

    def __init__(self, parts: dict[str, NDArray[Any]], min_share: float) -> None:
        self._marks = parts["marks"]
        self._hashes = parts["hashes"]
        self._owners = parts["owners"]
        self._sizes = parts["sizes"]
        self._text = parts["text"]
        self._starts = parts["starts"]
        self._min_share = min_share

    @classmethod
    def build(cls, sentences: Sequence[str], folder: Path, min_share: float) -> OverlapIndex:
        """Index sentences, write the arrays into `folder` and open them there."""
        normalised = list(dict.fromkeys(map(normalise, sentences)))
        hashed, owned, first = [], [], 0
        for batch in _batches(normalised):
            found, owners = _winnowed(batch)
            hashed.append(found)
            owned.append((owners + first).astype(np.int32))
            first += len(batch)
        hashes, owners = np.concatenate(hashed), np.concatenate(owned)
        order = np.argsort(hashes)
        hashes, owners = hashes[order], owners[order]
        is_rare = _run_lengths(hashes) <= MAX_OWNERS
        hashes, owners = hashes[is_rare], owners[is_rare]
        lengths = np.fromiter(map(len, normalised), np.int64, len(normalised))
        parts: dict[str, NDArray[Any]] = {
            "marks": np.sort(marks(normalised)),
            "hashes": hashes,
            "owners": owners,
            "sizes": np.bincount(owners, minlength=len(normalised)).astype(np.int32),
            "text": np.frombuffer(b"".join(normalised), np.uint8),
            "starts": np.concatenate([[0], np.cumsum(lengths)]),
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name in _PARTS:
            with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
                np.save(stream, parts[name])
        return cls.open(folder, min_share)

    @classmethod
    def open(cls, folder: Path, min_share: float) -> OverlapIndex:
        """Map the arrays of an index that was built before."""
        return cls({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _PARTS}, min_share)

    @classmethod
    def is_built(cls, folder: Path) -> bool:
        """Tell whether `folder` holds an index."""
        return all((folder / f"{name}.npy").exists() for name in _PARTS)

    def find(self, normalised: Sequence[bytes], hashed: Hashes) -> NDArray[np.int8]:
        """Return NONE, EXACT or NEAR of each normalised text, whose `marks` are given too; empty texts are NONE."""
        found = np.full(len(normalised), NONE, np.int8)
        first = 0
        for batch in _batches(normalised):
            found[first : first + len(batch)][self._near(batch)] = NEAR
            first += len(batch)
        is_exact = _contains(self._marks, hashed) & np.fromiter(map(bool, normalised), np.bool_, len(normalised))
        found[is_exact] = EXACT
        return found

    def _near(self, batch: Sequence[bytes]) -> list[int]:
        hashes, owners = _winnowed(batch)
        total = np.bincount(owners, minlength=len(batch))
        # Ordered, they are looked up in neighbouring places; and most are not there.
        order = np.argsort(hashes)
        order = order[_contains(self._hashes, hashes[order])]
        hashes, owners = hashes[order], owners[order]
        left = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - left
        places = np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        pairs, shared = np.unique(
            np.repeat(owners, counts) * len(self._sizes) + self._owners[places], return_counts=True
        )
        ours, theirs = np.divmod(pairs, len(self._sizes))
        fewest = np.minimum(total[ours], self._sizes[theirs])
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


def _shingles(text: NDArray[np.uint8]) -> Hashes:
    """Return the hash of the shingle that begins at each byte, (bytes - SHINGLE_BYTES + 1,)."""
    rows = max(0, len(text) - SHINGLE_BYTES + 1)
    hashes = np.zeros(rows, np.uint64)
    for offset in range(SHINGLE_BYTES):
        hashes *= np.uint64(0x100000001B3)
        hashes += text[offset : offset + rows]
    # Small changes of the text are to move all bits, as the smallest of a window is taken.
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    return hashes


def _winnowed(batch: Sequence[bytes]) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the winnowed shingles of texts, and the index of the text that each is of."""
    lengths = np.fromiter(map(len, batch), np.int64, len(batch))
    hashes = _shingles(np.frombuffer(b"".join(batch), np.uint8))
    owners = np.repeat(np.arange(len(batch)), lengths)[: len(hashes)]
    # Bytes from each place to the end of its text: a shingle or a window that is longer belongs to no text.
    left = np.cumsum(lengths)[owners] - np.arange(len(hashes))
    smallest = hashes
    for step in (1, 2, 4):
        smallest = np.minimum(smallest, np.concatenate([smallest[step:], np.repeat(smallest[-1:], step)]))
    has_window = left >= SHINGLE_BYTES + WINDOW - 1
    # Texts too short for a window keep all their shingles.
    is_short = (left >= SHINGLE_BYTES) & (lengths[owners] < SHINGLE_BYTES + WINDOW - 1)
    chosen = np.where(is_short, hashes, smallest)[has_window | is_short]
    owners = owners[has_window | is_short]
    # Neighbouring windows mostly choose the same shingle.
    is_new = np.ones(len(chosen), np.bool_)
    is_new[1:] = (chosen[1:] != chosen[:-1]) | (owners[1:] != owners[:-1])
    return chosen[is_new], owners[is_new]


def _batches(normalised: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Split texts into runs of about `_BATCH_BYTES`."""
    lengths = np.fromiter(map(len, normalised), np.int64, len(normalised))
    batch = np.cumsum(lengths) // _BATCH_BYTES
    bounds = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(normalised)]
    return [normalised[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def _run_lengths(ordered: Hashes) -> NDArray[np.int32]:
    """Return how often each of ordered values occurs, at every place."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    lengths = np.diff(starts, append=len(ordered)).astype(np.int32)
    return np.repeat(lengths, lengths)


def _contains(ordered: Hashes, values: Hashes) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[places] == values)
