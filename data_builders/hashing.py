"""Hashes, the same on every machine and in every process: of bytes, of runs of values, and numbers drawn by them.

What is not BLAKE2b is arithmetic modulo 2**64 on arrays.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Steps of mixing: the word is shifted to the right so far and XORed with itself, then multiplied by an odd number.
SPLITMIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
MURMUR = ((33, 0xFF51AFD7ED558CCD), (33, 1))


def hash64(content: bytes) -> int:
    """Return 64 bits of BLAKE2b."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def mixed(state: Hashes, steps: tuple[tuple[int, int], ...] = SPLITMIX) -> Hashes:
    """Spread every bit of each word over the word; a bijection."""
    for shift, factor in steps:
        state = state ^ (state >> np.uint64(shift))
        if factor != 1:
            state *= np.uint64(factor)
    return state


def runs(values: NDArray[Any], length: int, base: int | np.uint64 = GOLDEN) -> Hashes:
    """Return a hash of the run of so many values that begins at each place, (values - length + 1,), not mixed yet."""
    count = max(0, len(values) - length + 1)
    hashes = np.zeros(count, np.uint64)
    for offset in range(length):
        hashes *= np.uint64(base)
        hashes += values[offset : offset + count]
    return hashes


def contains(ordered: Hashes, values: Hashes) -> NDArray[np.bool_]:
    """Return which of `values` (n,) are among `ordered` ones."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[places] == values)


def draw(seed: int, *names: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the names only."""
    return hash64("\0".join([str(seed), *names]).encode()) / 2.0**64


def draws(seed: int, name: str, digests: Hashes) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each digest (n,) that depends on it, the seed and the name only."""
    return mixed(digests ^ np.uint64(hash64(f"{seed}\0{name}".encode()))) / 2.0**64
