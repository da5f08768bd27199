"""Expressions as arrays: exact values, uniform sampling, fingerprints."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest

from data_builders.errors import UserError
from data_builders.kv.expressions import (
    Expressions,
    draw_keys,
    draw_numbers,
    evaluate,
    fingerprints,
    sample_distinct,
)
from data_builders.kv.render import Renderer
from data_builders.kv.text import OPERATORS, number_format


def exact(expression: str) -> int:
    return eval(re.sub(r"\b0+(?=[0-9])", "", expression).replace("x", "*"))


def test_values_are_exact_beyond_64_bits() -> None:
    rng = np.random.default_rng(0)
    for num_values, signs in ((25_000, "x"), (25_000, "+-x"), (2_000_000_000, "-x"), (99, "+-")):
        for count in (2, 5, 6):
            numbers = draw_numbers(rng, num_values, signs, count, 300)
            results = evaluate(numbers)
            written = Renderer(["ab"], 1, number_format("natural", num_values, 6, signs)).results(results)
            for row, (operands, operators) in enumerate(zip(numbers.operands, numbers.operators, strict=True)):
                signed = [OPERATORS[index] for index in operators]
                text = " ".join(str(x) for pair in zip(operands, [*signed, ""], strict=True) for x in pair)
                assert int(results[row]) == exact(text) == int(written[row].as_py())
            if len(signs) == 2 and "x" not in signs:
                assert results.dtype == np.int64


def test_padded_results_are_signed_and_of_one_width() -> None:
    numbers = number_format("padded", 99, 6, "+-")
    results = np.array([-594, -14, 0, 7, 594])
    expected = ["-594", "-014", "+000", "+007", "+594"]
    assert Renderer(["ab"], 99, numbers).results(results).to_pylist() == expected
    assert [numbers.result(int(number)) for number in results] == expected
    assert number_format("padded", 25_000, 6, "x").result_width == len(str(25_000**6))


def test_drawn_keys_are_distinct_and_uniform() -> None:
    drawn = draw_keys(np.random.default_rng(0), np.array([5, 6, 7, 8]), "+", 3, 24_000).operands
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 850
    assert counts.max() < 1150


def test_fingerprints_tell_operands_order_and_operators_apart() -> None:
    one = [
        Expressions(np.array([operands], np.int32), np.array([operators], np.int8))
        for operands, operators in (
            ([1, 2, 3], [0, 1]),
            ([1, 3, 2], [0, 1]),
            ([1, 2, 3], [1, 0]),
            ([1, 2], [0]),
        )
    ]
    assert len({int(fingerprints(expression)[0]) for expression in one}) == 4
    assert fingerprints(one[0]) == fingerprints(one[0])


def everything(expressions: Expressions) -> np.ndarray:
    return np.ones(len(expressions), dtype=bool)


def test_every_expression_of_a_small_space_is_found_and_no_more() -> None:
    draw = partial(draw_keys, np.random.default_rng(0), np.arange(8), "+", 2)
    found, distinct = sample_distinct(56, draw, everything, "all", allow_repeats=False)
    assert distinct == 56 == len({tuple(row) for row in found.operands.tolist()})
    with pytest.raises(UserError, match="no expression outside the test set is left"):
        sample_distinct(57, draw, everything, "all", allow_repeats=False)
    found, distinct = sample_distinct(500, draw, everything, "all", allow_repeats=True)
    assert (len(found), distinct) == (500, 56)
