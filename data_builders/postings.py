"""An inverted index: which items of a test set contain which hashes, and how many of them a text shares with each item.

Both searches for overlap use it: byte shingles of sentences (`ntl/overlap.py`) and token n-grams of code
(`code/overlap.py`). Its arrays are memory-mapped from disk, so several processes share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_builders.files import atomic_path
from data_builders.hashing import Hashes, contains


def save_arrays(arrays: Mapping[str, NDArray[Any]], folder: Path) -> None:
    """Write each array to its own .npy file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, array)


def open_arrays(folder: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Memory-map the arrays that `save_arrays` wrote."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


@dataclass(frozen=True)
class Postings:
    """An inverted index from hashes to the items that contain them.

    Attributes:
        hashes: (num_postings,) sorted.
        owners: (num_postings,) the item of each hash.
        sizes: (num_items,) the number of hashes of each item.
    """

    hashes: Hashes
    owners: NDArray[np.int32]
    sizes: NDArray[np.int32]

    @classmethod
    def of(cls, hashes: Hashes, owners: NDArray[Any], num_items: int, max_owners: int | None = None) -> Postings:
        """Build the index of unsorted hashes (num_postings,); drop a hash that occurs more than `max_owners` times."""
        order = np.argsort(hashes, kind="stable")
        hashes, owners = hashes[order], owners[order].astype(np.int32)
        if max_owners is not None:
            is_rare = _run_lengths(hashes) <= max_owners
            hashes, owners = hashes[is_rare], owners[is_rare]
        return cls(hashes, owners, np.bincount(owners, minlength=num_items).astype(np.int32))

    def shared(
        self, hashes: Hashes, texts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (texts, items, counts): how many hashes each pair has in common; pairs with none are left out.

        Args:
            hashes: (n,) hashes of any number of texts.
            texts: (n,) the text of each hash.
        """
        # Sorted lookups touch neighbouring memory; and most hashes are not in the index.
        order = np.argsort(hashes)
        order = order[contains(self.hashes, hashes[order])]
        hashes, texts = hashes[order], texts[order]
        left = np.searchsorted(self.hashes, hashes, "left")
        counts = np.searchsorted(self.hashes, hashes, "right") - left
        places = np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        num_items = max(1, len(self.sizes))
        pairs, shared = np.unique(np.repeat(texts, counts) * num_items + self.owners[places], return_counts=True)
        return *np.divmod(pairs, num_items), shared


def _run_lengths(ordered: Hashes) -> NDArray[np.int32]:
    """Return, for every entry of a sorted array, how often its value occurs."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    lengths = np.diff(starts, append=len(ordered)).astype(np.int32)
    return np.repeat(lengths, lengths)
