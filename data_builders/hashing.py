"""Hashes, and random draws made from them, that are equal on every machine and in every process.

Hashes are BLAKE2b, or arithmetic modulo 2**64 on arrays.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Mixing steps (shift, factor): XOR the word with itself shifted right by `shift`, then multiply by the odd `factor`.
SPLITMIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
MURMUR = ((33, 0xFF51AFD7ED558CCD), (33, 1))


def hash64(content: bytes) -> int:
    """Return the 64-bit BLAKE2b hash of `content`."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def mixed(state: Hashes, steps: tuple[tuple[int, int], ...] = SPLITMIX) -> Hashes:
    """Mix each word so that every bit affects the whole word; a bijection."""
    for shift, factor in steps:
        state = state ^ (state >> np.uint64(shift))
        if factor != 1:
            state *= np.uint64(factor)
    return state


def runs(values: NDArray[Any], length: int, base: int | np.uint64 = GOLDEN) -> Hashes:
    """Return the unmixed hash of every run of `length` consecutive values, (len(values) - length + 1,)."""
    count = max(0, len(values) - length + 1)
    hashes = np.zeros(count, np.uint64)
    for offset in range(length):
        hashes *= np.uint64(base)
        hashes += values[offset : offset + count]
    return hashes


def contains(ordered: Hashes, values: Hashes) -> NDArray[np.bool_]:
    """Return a mask (n,): which of `values` (n,) are in the sorted array `ordered`."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[places] == values)


def draw(seed: int, *names: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the names only."""
    return hash64("\0".join([str(seed), *names]).encode()) / 2.0**64


def draws(seed: int, name: str, digests: Hashes) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each digest (n,); it depends only on the digest, the seed and the name."""
    return mixed(digests ^ np.uint64(hash64(f"{seed}\0{name}".encode()))) / 2.0**64
