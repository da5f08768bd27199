"""Byte-level tokenizers of a fixed vocabulary: nothing is lost, and each cut is what its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_builders.kv.byte_tokenizer import CUTS, build_byte_tokenizer
from data_builders.kv.text import WORDS

KEYS = ["abcd", "abcdef", "qwert", "zz", "solver"]
TEXT = "substitute: abcd + abcdef - qwert = 12 + 07 - 33 = -014"
SCRIPTS = "Zażółć ქართული हिन्दी ภาษาไทย 中文 ελληνικά עברית русский \U0001f469\u200d\U0001f4bb e\u0301 <eos> \t\r\n  ٣"
CUT_TEXTS = {
    "pieces": "substitute|:| ab|cd| +| ab|cd|ef| -| qw|er|t| =| 1|2| +| 0|7| -| 3|3| =| -|0|1|4",
    "words": "substitute|:| abcd| +| abcdef| -| qwert| =| 12| +| 07| -| 33| =| -|01|4",
    "words_triples": "substitute|:| abcd| +| abcdef| -| qwert| =| 12| +| 07| -| 33| =| -|014",
}


@pytest.fixture(scope="module", params=CUTS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    return build_byte_tokenizer(CUTS[name], KEYS, WORDS)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_texts_are_cut_as_the_name_says(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    assert "|".join(tokenizer.decode([token]) for token in ids(tokenizer, TEXT)) == CUT_TEXTS[name]


def test_no_text_is_changed_and_no_text_is_a_special_token(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = np.random.default_rng(0)
    characters = list(SCRIPTS + TEXT)
    for _ in range(200):
        text = "".join(rng.choice(characters, rng.integers(0, 30)))
        found = ids(tokenizer, text)
        assert tokenizer.decode(found) == text
        assert not set(found) & set(tokenizer.all_special_ids)


def test_prompt_and_completion_are_cut_apart_as_they_are_together(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, completion = TEXT[: TEXT.index("=") + 1], TEXT[TEXT.index("=") + 1 :]
    assert ids(tokenizer, prompt) + ids(tokenizer, completion) == ids(tokenizer, TEXT)


def test_a_key_of_another_share_is_spelled(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    pieces = len(ids(tokenizer, " hjklm"))
    assert pieces == (3 if name == "pieces" else 6)


def test_loads_through_auto_tokenizer_and_saves_the_same_bytes(
    tokenizer: PreTrainedTokenizerFast, name: str, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "one")
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "one"), TEXT) == ids(tokenizer, TEXT)
    build_byte_tokenizer(CUTS[name], KEYS, WORDS).save_pretrained(tmp_path / "two")
    one, two = ((tmp_path / folder / "tokenizer.json").read_bytes() for folder in ("one", "two"))
    assert one == two
