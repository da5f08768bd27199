"""Keys: where their names come from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_builders.errors import UserError
from data_builders.kv.build import build
from data_builders.kv.keys import random_names, vocabulary_names
from data_builders.kv.word_tokenizer import build_word_tokenizer
from tests.kv_settings import SMALL

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
