"""The tokenizers of key-value data: by bytes nothing is lost and cuts are what they say; by words keys are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_builders.kv.text import WORDS
from data_builders.kv.tokenizers import CUTS, build_byte_tokenizer, build_word_tokenizer

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


WORD_KEYS = ["abc", "de", "fgh", "xx"]
WORD_TEXTS = [
    "substitute: abc + de - fgh = 12 + 07 - 33 = -014",
    "substitute: abc x de = 12 x 7 = 84",
    "substitute: abc - de = 12 + 07 = +019",
    "solve: 12 + 07 - 33 =",
    "-014",
    "+014",
    "12 + 07 - 33 =",
]


@pytest.fixture(scope="module")
def by_words() -> PreTrainedTokenizerFast:
    return build_word_tokenizer(WORD_KEYS, WORDS)


@pytest.mark.parametrize("text", WORD_TEXTS)
def test_text_survives_the_round_trip(by_words: PreTrainedTokenizerFast, text: str) -> None:
    assert by_words.decode(by_words(text)["input_ids"]) == text
    assert by_words.decode(by_words(text.replace(" ", "  "))["input_ids"]) == text


def test_keys_are_one_token_and_numbers_one_a_digit(by_words: PreTrainedTokenizerFast) -> None:
    assert by_words.tokenize("solve: xx x abc=-014") == ["solve", ":", "xx", "x", "abc", "=", *"-014"]
    assert by_words.unk_token_id not in by_words(WORD_TEXTS[0])["input_ids"]
    assert by_words("solve: zzz")["input_ids"][-1] == by_words.unk_token_id


def test_prompt_and_completion_are_apart_by_words_what_they_are_together(by_words: PreTrainedTokenizerFast) -> None:
    prompt, completion = "substitute: abc + de =", " 12 + 07 = +019"
    together = by_words(prompt + completion)["input_ids"]
    assert together == by_words(prompt)["input_ids"] + by_words(completion)["input_ids"]


def test_special_tokens_and_left_padding(by_words: PreTrainedTokenizerFast) -> None:
    assert (by_words.pad_token, by_words.eos_token, by_words.unk_token) == ("<pad>", "<eos>", "<unk>")
    batch = by_words(["solve: 1 =", "solve: 1 + 2 ="], padding=True)
    assert batch["input_ids"][0][:2] == [by_words.pad_token_id] * 2
    assert batch["attention_mask"][0][:2] == [0, 0]
    ids = [*by_words(" -014")["input_ids"], by_words.eos_token_id, by_words.pad_token_id]
    assert by_words.decode(ids, skip_special_tokens=True) == "-014"


def test_one_by_words_loads_through_auto_tokenizer_and_saves_the_same_bytes(
    by_words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    by_words.save_pretrained(tmp_path / "one")
    build_word_tokenizer(WORD_KEYS, WORDS).save_pretrained(tmp_path / "two")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "one")
    for text in WORD_TEXTS:
        assert loaded(text)["input_ids"] == by_words(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.padding_side, loaded.eos_token, loaded.pad_token) == ("left", "<eos>", "<pad>")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_key_that_is_already_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="distinct"):
        build_word_tokenizer(["abc", "solve"], ["solve"])
