"""The processes of a data build: results in order, few tasks under way, and one line when the system kills one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from data_builders.errors import UserError
from data_builders.workers import Workers, num_workers


def test_results_come_in_order_and_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield -item

    with Workers(2, int) as workers:
        results = workers.map(abs, items())
        assert next(results) == 0 and len(taken) == 4
        assert list(results) == list(range(1, 20))


def test_a_process_that_is_killed_is_one_line() -> None:
    with Workers(2, int) as workers, pytest.raises(UserError, match="was killed, perhaps for want of memory; run the"):
        list(workers.map(os._exit, [1]))


def test_one_process_for_each_processor_unless_said_otherwise() -> None:
    assert num_workers(3) == 3 and num_workers(None) >= 1
    with pytest.raises(UserError, match="workers: 0 is too few"):
        num_workers(0)
