"""Key-value data piece by piece: settings, names of keys, expressions as arrays."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from data_builders.errors import UserError
from data_builders.kv.build import KVDataConfig, build
from data_builders.kv.expressions import (
    Expressions,
    draw_keys,
    draw_numbers,
    evaluate,
    fingerprints,
    sample_distinct,
)
from data_builders.kv.keys import random_names, vocabulary_names
from data_builders.kv.render import Renderer
from data_builders.kv.text import OPERATORS, number_format
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.kv_settings import SMALL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_keys": 4, "num_values": 4}, "num_keys: 4 is too few"),
        ({"held_in_fraction": 0.05}, "leaves 3 held-in keys, fewer than max_operands"),
        ({"held_in_fraction": 0.95}, "held-out keys, fewer than max_operands"),
        ({"held_in_fraction": 1.5}, "between 0 and 1"),
        ({"num_values": 61}, "num_values: 61 is more than num_keys"),
        ({"operators": "+/"}, "operators: '\\+/'"),
        ({"operators": "++"}, "distinct signs"),
        ({"operators": ""}, "distinct signs"),
        ({"number_format": "roman"}, "number_format: 'roman'"),
        ({"mix_direct": 0.5}, "must sum to 1"),
        ({"mix_direct": -0.1, "mix_stepwise": 0.95}, "must not be negative"),
        ({"context_fraction": 1.1}, "context_fraction"),
        ({"min_operands": 6}, "min_operands: 6 is more than max_operands"),
        ({"min_operands": 1}, "min_operands: 1 is too small"),
        ({"seed": -1}, "seed: -1"),
        ({"num_test_rows": 12_000}, "num_test_rows: 12000 is more than the 11880 distinct held_in"),
        ({"aug_operand_weights": (1.0,)}, "1 weights for the 3 operand counts 3..5"),
        ({"aug_operand_weights": (0.0, 0.0, 0.0)}, "not all zero"),
        ({"max_key_length": 1}, "max_key_length: 1"),
    ],
)
def test_bad_settings_are_one_line_naming_the_setting(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        replace(SMALL, **changes)
    assert "\n" not in str(caught.value)


def test_too_many_keys_for_the_letter_strings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="700 is more than the 676 strings of 2 to 2 letters"):
        build(replace(SMALL, num_keys=700, max_key_length=2), tmp_path / "data")


def test_every_preset_is_a_valid_config_and_names_its_command() -> None:
    paths = sorted((Path(__file__).parents[1] / "conf" / "data" / "kv").glob("*.yaml"))
    assert [path.stem for path in paths] == ["paper", "smoke", "tiny"]
    for path in paths:
        text = path.read_text()
        KVDataConfig(**yaml.safe_load(text))
        assert text.startswith(f"# calmctl data kv --preset {path.stem} ")


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def test_random_names_fill_short_lengths_and_avoid_the_prompt_words() -> None:
    rng = np.random.default_rng(0)
    assert sorted(random_names(676, 2, 2, rng)) == sorted(a + b for a in LETTERS for b in LETTERS)
    names = random_names(3000, 2, 6, rng)
    assert len(set(names)) == 3000
    assert all(re.fullmatch("[a-z]{2,6}", name) for name in names)
    with pytest.raises(UserError, match="703 is more than the 676 strings"):
        random_names(703, 2, 2, rng)


def test_keys_can_be_tokens_of_another_tokenizer(tmp_path: Path) -> None:
    words = [a + b for a in LETTERS for b in "aeiou"]
    build_word_tokenizer([*words, "toolong", "solve", "a1", "Two"], ["substitute"]).save_pretrained(tmp_path / "t")
    config = replace(SMALL, tokenizer=str(tmp_path / "t"), num_keys=100)
    manifest = build(config, tmp_path / "data")
    assert manifest["tokenizer"] == {"source": str(tmp_path / "t"), "folder": None, "candidates": 131}
    assert not (tmp_path / "data" / "tokenizer").exists()
    assert set(pq.read_table(tmp_path / "data" / "keys.parquet")["key"].to_pylist()) <= {*words, "Two"}
    with pytest.raises(UserError, match="200 is more than the 131 tokens"):
        build(replace(config, num_keys=200), tmp_path / "more")
    with pytest.raises(UserError, match="cannot be loaded"):
        build(replace(config, tokenizer=str(tmp_path / "none")), tmp_path / "none-data")


def test_vocabulary_names_must_be_one_token_after_a_space() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # Byte-level: "cat" exists only without its space, "Ġdog" only with it.
    vocabulary = {token: index for index, token in enumerate(["Ġ", ":", "cat", "Ġdog", "d", "o", "g"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="Ġ"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert vocabulary_names(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="Ġ"), 2, 6) == ["dog"]


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
