"""CodeXGLUE's smoothed BLEU-4, and the strings that codes for GSM8K and MGSM compare."""

from __future__ import annotations

import math

import pytest

from data_builders.errors import UserError
from evals.metrics.answers import (
    GSM8K_PATTERN,
    flexible_answer,
    gsm8k_string,
    mgsm_string,
    official_answer,
    strict_answer,
)
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
    with pytest.raises(UserError, match="1 predictions for 2 references"):
        smoothed_bleu(["a"], ["a", "b"])


def test_strings_that_published_codes_compare() -> None:
    text = "First 3. #### 1,234.\nThen #### 5 and $7.00."
    assert official_answer(text) == "1234."  # their code keeps a final point
    assert gsm8k_string(strict_answer(text, GSM8K_PATTERN) or "") == "1234"
    assert flexible_answer(text) == "$7.00." and gsm8k_string("$7.00.") == "7.00" and mgsm_string("$-7.00.") == "700"
    assert gsm8k_string("It is $3.\n#### 4\n#### 1,234") == "1234"
    assert official_answer("#### $5") is None and official_answer("####5") is None
    assert flexible_answer("none") is None and strict_answer("no phrase 5", GSM8K_PATTERN) is None
    # A lone final sign counts as a number to the harness: that is what its expression says.
    assert gsm8k_string(flexible_answer("5 and so on ...") or "") == ".."
