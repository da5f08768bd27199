"""Fingerprints of texts: tokens whatever the layout, n-grams, digests and MinHash signatures.

All of them are the same on every machine and in every process: tokens are hashed by BLAKE2b, the rest is arithmetic
modulo 2**64.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from data_builders.postings import hash64

NUM_PERMUTATIONS = 128
SHINGLE = 5
# Quotes, commas, brackets and line ends are what formatting changes; comment signs cut a sentence into lines.
_TOKEN = re.compile(r"""\w+|[^\w\s"'`,()\\#]""")
_COMMENT = re.compile(r"#.*")
_MAX_KNOWN = 1 << 18
_CHUNK = 1 << 13
_BASE = np.uint64(0x9E3779B97F4A7C15)
_PERMUTATIONS = np.random.default_rng(0).integers(0, 1 << 63, (2, NUM_PERMUTATIONS, 1), dtype=np.uint64)
_FACTORS, _OFFSETS = _PERMUTATIONS[0] * np.uint64(2) + np.uint64(1), _PERMUTATIONS[1]


class _TokenHashes(dict[str, int]):
    """Remembers hashes, since few tokens make up most of a corpus."""

    def __missing__(self, token: str) -> int:
        if len(self) >= _MAX_KNOWN:
            self.clear()
        self[token] = value = hash64(token.encode())
        return value


_HASHES = _TokenHashes()


def draw(seed: int, *names: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the names only."""
    return hash64("\0".join([str(seed), *names]).encode()) / 2.0**64


def draws(seed: int, name: str, digests: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each digest (n,) that depends on it, the seed and the name only."""
    return _mixed(digests ^ np.uint64(hash64(f"{seed}\0{name}".encode()))) / 2.0**64


def token_ids(text: str) -> NDArray[np.uint64]:
    """Return a hash of every token: words and signs, whatever the layout, case and Unicode form of the text."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words = _TOKEN.findall(text.casefold())
    return np.fromiter((_HASHES[word] for word in words), np.uint64, len(words))


def without_comments(text: str) -> str:
    """Return Python source without its comments; strings with a `#` in them are cut too, in every text alike."""
    return _COMMENT.sub("", text)


def ids_digest(ids: NDArray[np.uint64]) -> int:
    """Return a digest of a sequence of tokens."""
    return hash64(ids.tobytes())


def ngrams(ids: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Return the distinct n-grams of a sequence, hashed and sorted; none where it is shorter than n."""
    count = len(ids) - n + 1
    if count < 1:
        return np.empty(0, np.uint64)
    grams = np.zeros(count, np.uint64)
    for place in range(n):
        grams = grams * _BASE + ids[place : place + count]
    return np.unique(_mixed(grams))


def minhash(ids: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the MinHash signature (NUM_PERMUTATIONS,) of a text's 5-grams, or of its tokens where it is shorter."""
    shingles = ngrams(ids, min(SHINGLE, max(1, len(ids))))
    signature = np.full(NUM_PERMUTATIONS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _CHUNK):
        hashed = (_FACTORS * shingles[start : start + _CHUNK] + _OFFSETS) >> np.uint64(32)
        signature = np.minimum(signature, hashed.min(axis=1).astype(np.uint32))
    return signature


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit over the word, as SplitMix64 does."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
