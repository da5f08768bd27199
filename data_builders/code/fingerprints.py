"""Fingerprints of code: layout-independent tokens, n-grams, digests, and near-duplicate files by MinHash."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from data_builders.hashing import Hashes, hash64, mixed, runs

NUM_PERMUTATIONS = 128
SHINGLE = 5
# Two files of similarity s share a band with probability 1 - (1 - s**8)**16: 0.95 at 0.8, 0.06 at 0.5.
NUM_BANDS = 16
# No tokens: quotes, commas, brackets and line ends, which formatting changes; comment signs, which split a sentence.
_TOKEN = re.compile(r"""\w+|[^\w\s"'`,()\\#]""")
_COMMENT = re.compile(r"#.*")
_MAX_KNOWN = 1 << 18
_CHUNK = 1 << 13
_PERMUTATIONS = np.random.default_rng(0).integers(0, 1 << 63, (2, NUM_PERMUTATIONS, 1), dtype=np.uint64)
_FACTORS, _OFFSETS = _PERMUTATIONS[0] * np.uint64(2) + np.uint64(1), _PERMUTATIONS[1]


class _TokenHashes(dict[str, int]):
    """A bounded cache of token hashes, since few tokens make up most of a corpus."""

    def __missing__(self, token: str) -> int:
        if len(self) >= _MAX_KNOWN:
            self.clear()
        self[token] = value = hash64(token.encode())
        return value


_HASHES = _TokenHashes()


def token_ids(text: str) -> Hashes:
    """Return the hash of every token (word or sign), independent of the text's layout, case and Unicode form."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words = _TOKEN.findall(text.casefold())
    return np.fromiter((_HASHES[word] for word in words), np.uint64, len(words))


def without_comments(text: str) -> str:
    """Return Python source without comments; strings are cut at a `#` too, in all compared texts alike."""
    return _COMMENT.sub("", text)


def ids_digest(ids: Hashes) -> int:
    """Return a digest of a sequence of tokens."""
    return hash64(ids.tobytes())


def ngrams(ids: Hashes, n: int) -> Hashes:
    """Return the distinct n-grams of a sequence, hashed and sorted; none if it is shorter than n."""
    return np.unique(mixed(runs(ids, n)))


def minhash(ids: Hashes) -> NDArray[np.uint32]:
    """Return the MinHash signature (NUM_PERMUTATIONS,) of a text's token 5-grams (of a shorter text: of the whole)."""
    shingles = ngrams(ids, min(SHINGLE, max(1, len(ids))))
    signature = np.full(NUM_PERMUTATIONS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _CHUNK):
        hashed = (_FACTORS * shingles[start : start + _CHUNK] + _OFFSETS) >> np.uint64(32)
        signature = np.minimum(signature, hashed.min(axis=1).astype(np.uint32))
    return signature


def repeated(digests: Hashes) -> NDArray[np.bool_]:
    """Return a mask (n,) of the entries that occur earlier in the array."""
    again = np.ones(len(digests), np.bool_)
    again[np.unique(digests, return_index=True)[1]] = False
    return again


def near_duplicates(signatures: NDArray[np.uint32], similarity: float) -> NDArray[np.bool_]:
    """Return a mask (n,) of the signatures (n, NUM_PERMUTATIONS) that are similar to an earlier, unmarked one.

    The first signature of a group stays unmarked, so the result depends only on the order of the rows.
    """
    num_files = len(signatures)
    marked = np.zeros(num_files, np.bool_)
    if num_files < 2:
        return marked
    groups, num_groups, is_candidate = _bands(signatures)
    kept = np.full(num_groups, -1, np.int64)
    for index in np.flatnonzero(is_candidate):
        bands = groups[index]
        others = np.unique(kept[bands])
        others = others[others >= 0]
        if len(others) and (signatures[others] == signatures[index]).mean(axis=1).max() >= similarity:
            marked[index] = True
            continue
        kept[bands] = np.where(kept[bands] < 0, index, kept[bands])
    return marked


def _bands(signatures: NDArray[np.uint32]) -> tuple[NDArray[np.int64], int, NDArray[np.bool_]]:
    """Return each row's group in each band (n, NUM_BANDS), the number of groups, and a mask of rows that share one."""
    width = NUM_PERMUTATIONS // NUM_BANDS
    groups = np.empty((len(signatures), NUM_BANDS), np.int64)
    is_candidate = np.zeros(len(signatures), np.bool_)
    total = 0
    for band in range(NUM_BANDS):
        part = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * width))).ravel()
        _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        groups[:, band] = group + total
        is_candidate |= sizes[group] > 1
        total += len(sizes)
    return groups, total, is_candidate
