"""Rebuild sets so that they iterate in the order of the original on the other side."""

import bisect
import itertools
from collections.abc import Callable, Iterable
from typing import Any


def in_order(kind: Callable[[Iterable[Any]], Any], items: list[Any]) -> Any:
    """Return a set of `items` that iterates in their order, if one of many ways to build it gives that order.

    The order of a set depends on its history, which cannot be read. Most orders are found at once.
    """
    made = kind(items)
    if len(items) < 2 or len(items) > 1000 or list(made) == items:
        return made
    hashes = list(map(hash, items))
    orders = (_by_place([each & (2**bits - 1) for each in hashes], items) for bits in range(3, 13))
    shuffles = itertools.permutations(items) if len(items) < 7 else ()
    for order in itertools.chain([items, items[::-1]], _sorted(items), orders, shuffles):
        for found in (kind(order), kind(set(order)), kind(dict.fromkeys(order))):
            if list(found) == items:
                return found
    return made


def _sorted(items: list[Any]) -> list[list[Any]]:
    try:
        return [sorted(items), sorted(items, reverse=True)]
    except Exception:
        return []


def _by_place(places: list[int], items: list[Any]) -> list[Any]:
    """Return the items of the longest subsequence sorted by place, then the others, whose places had been taken."""
    ends: list[int] = []  # of the longest chains of each length, by index
    before = [-1] * len(items)
    lowest: list[int] = []
    for index, place in enumerate(places):
        length = bisect.bisect_right(lowest, place)
        before[index] = ends[length - 1] if length else -1
        lowest[length:] = [place, *lowest[length + 1 :]]
        ends[length:] = [index, *ends[length + 1 :]]
    chain, index = set(), ends[-1]
    while index >= 0:
        chain.add(index)
        index = before[index]
    indices = range(len(items))
    return [items[i] for i in indices if i in chain] + [items[i] for i in indices if i not in chain]
