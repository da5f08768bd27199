"""The processes of a data build: results in order, few tasks under way, and one line when the system kills one."""

from __future__ import annotations

import operator
import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from data_builders.errors import UserError
from data_builders.workers import Workers, num_workers


def test_results_come_in_order_and_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield -item

    with Workers(2, partial(int, -3)) as workers:  # what is prepared in each process goes with every item
        results = workers.map(operator.mul, items())
        assert next(results) == 0 and len(taken) == 4
        assert list(results) == list(range(3, 60, 3))


def test_a_process_that_is_killed_is_one_line() -> None:
    message = "was killed, perhaps for want of memory; run the"
    with Workers(2, os.getpid) as workers, pytest.raises(UserError, match=message):
        list(workers.map(os.kill, [signal.SIGKILL]))


def test_one_process_for_each_processor_unless_said_otherwise() -> None:
    assert num_workers(3) == 3 and num_workers(None) >= 1
    with pytest.raises(UserError, match="workers: 0 is too few"):
        num_workers(0)
