"""Near-duplicates among many files: MinHash signatures in bands, then an estimate of the similarity.

Memory is that of the signatures, half a kilobyte a file, however long the files are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_builders.code.fingerprints import NUM_PERMUTATIONS

# Two files of similarity s share a band with probability 1 - (1 - s**8)**16: 0.95 at 0.8, 0.06 at 0.5.
NUM_BANDS = 16


def repeated(digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which entries (n,) have occurred before in the array."""
    again = np.ones(len(digests), np.bool_)
    again[np.unique(digests, return_index=True)[1]] = False
    return again


def near_duplicates(signatures: NDArray[np.uint32], similarity: float) -> NDArray[np.bool_]:
    """Return which rows (n,) of the signatures (n, NUM_PERMUTATIONS) are like an earlier one that is not.

    The first of a group stays, so the result depends on the order of the rows and on nothing else.
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
    """Return each row's group in each band (n, NUM_BANDS), how many groups there are, and which rows share one."""
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
