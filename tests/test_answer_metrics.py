"""CodeXGLUE's smoothed BLEU-4, and numbers in what a model wrote."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from data_builders.errors import DataError
from evals.metrics.answers import answer, flexible_answer, parse_number, strict_answer
from evals.metrics.smoothed_bleu import example_bleu, smoothed_bleu
from tests.real_data import real_data


def test_the_official_example_scores_what_the_official_evaluator_says() -> None:
    folder = real_data("codexglue/code_to_text/evaluator_example")
    sides = [
        [line.split("\t", 1)[1] for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("predictions.txt", "reference.txt")
    ]
    assert smoothed_bleu(*sides) == 9.554726113590661


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Returns the name .", "returns the NAME.", 1.0),
        # 3 of 4 words, then (2+1)/(3+1) pairs, (1+1)/(2+1) triples, (0+1)/(1+1) fours.
        ("returns the name today", "returns the name now", (3 / 4 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        # Two words of three: all there, and the penalty for length.
        ("returns the", "returns the name", math.exp(1 - 4 / 3)),
        ("", "three words here", math.exp(-3)),
        ("read file\tand more", "read file", 1.0),
        ("read_file", "read _ file", 1.0),
    ],
)
def test_smoothed_bleu_by_hand(prediction: str, reference: str, score: float) -> None:
    assert example_bleu(prediction, reference) == pytest.approx(score, rel=1e-12)


def test_a_single_word_that_is_wrong_scores_nothing() -> None:
    assert example_bleu("write", "read") < 1e-70
    with pytest.raises(DataError, match="1 predictions for 2 references"):
        smoothed_bleu(["a"], ["a", "b"])


@pytest.mark.parametrize(
    ("text", "language", "number"),
    [
        ("The answer is 15", "en", "15"),
        ("The answer is 5", "en", "5"),
        ("The answer is $1,234.50.", "en", "1234.5"),
        ("The answer is 5 + 6 = 11. So 12 is wrong\n13", "en", "12"),
        ("The answer is unclear, 7\nthe answer is **-8**.", "en", "-8"),
        ("20-12=8", "en", "8"),
        ("so 3.", "en", "3"),
        ("x = 2.125", "en", "2.125"),
        ("x = 2.125", "de", "2125"),
        ("x = 2,5", "fr", "2.5"),
        ("x = 114 200 €", "fr", "114200"),
        ("x = 114\u202f200", "ru", "114200"),
        ("in 2 100 each", "en", "100"),
        ("x = 1.234,5", "es", "1234.5"),
        ("x = 1,14,200", "bn", "114200"),
        ("x = ১৮", "bn", "18"),
        ("x = １，２３４", "ja", "1234"),
        ("= \u22125", "en", "-5"),
        ("none", "en", None),
        ("", "en", None),
    ],
)
def test_numbers_as_their_language_writes_them(text: str, language: str, number: str | None) -> None:
    assert answer(text, "The answer is", language) == (None if number is None else Decimal(number))


def test_strings_that_harnesses_compare() -> None:
    text = "First 3. #### 1,234.\nThen $7.00"
    assert strict_answer(text, "####") == "1234"
    assert flexible_answer(text) == "7.00"
    assert strict_answer("no phrase 5", "####") is None
    assert strict_answer("#### $5", "####") is None and strict_answer("The answer is: $5", "The answer is") == "5"
    assert flexible_answer("none") is None
    # A lone final sign counts as a number to a harness: that is what its expression says.
    assert flexible_answer("5 and so on ...") == ".."


@pytest.mark.parametrize("text", ["", ".", "1.2.3", "-", "abc", "1,2.3,4"])
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None
