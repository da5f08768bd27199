"""The word-level tokenizer: what becomes one token, and that text survives the round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_builders.kv.word_tokenizer import build_word_tokenizer

KEYS = ["abc", "de", "fgh", "xx"]
TEXTS = [
    "substitute: abc + de - fgh = 12 + 07 - 33 = -014",
    "substitute: abc x de = 12 x 7 = 84",
    "substitute: abc - de = 12 + 07 = +019",
    "solve: 12 + 07 - 33 =",
    "-014",
    "+014",
    "12 + 07 - 33 =",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_word_tokenizer(KEYS, ["substitute", "solve"])


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.decode(tokenizer(text.replace(" ", "  "))["input_ids"]) == text


def test_keys_are_one_token_and_numbers_one_a_digit(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("solve: xx x abc=-014") == ["solve", ":", "xx", "x", "abc", "=", *"-014"]
    assert tokenizer.unk_token_id not in tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer("solve: zzz")["input_ids"][-1] == tokenizer.unk_token_id


def test_prompt_and_completion_tokenize_apart_as_they_do_together(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, completion = "substitute: abc + de =", " 12 + 07 = +019"
    together = tokenizer(prompt + completion)["input_ids"]
    assert together == tokenizer(prompt)["input_ids"] + tokenizer(completion)["input_ids"]


def test_special_tokens_and_left_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) == ("<pad>", "<eos>", "<unk>")
    batch = tokenizer(["solve: 1 =", "solve: 1 + 2 ="], padding=True)
    assert batch["input_ids"][0][:2] == [tokenizer.pad_token_id] * 2
    assert batch["attention_mask"][0][:2] == [0, 0]
    ids = [*tokenizer(" -014")["input_ids"], tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "-014"


def test_loads_through_auto_tokenizer_and_saves_the_same_bytes(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path / "one")
    build_word_tokenizer(KEYS, ["substitute", "solve"]).save_pretrained(tmp_path / "two")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "one")
    for text in TEXTS:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.padding_side, loaded.eos_token, loaded.pad_token) == ("left", "<eos>", "<pad>")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_key_that_is_already_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="distinct"):
        build_word_tokenizer(["abc", "solve"], ["solve"])
