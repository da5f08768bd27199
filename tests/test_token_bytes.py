"""Token bytes: every text of a tokenizer that keeps texts comes back byte for byte, other tokenizers are refused."""

from unicodedata import normalize

import pytest
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.tokenizers.token_bytes import TokenBytes
from tests.tokenizer_families import FAMILIES, REFUSED, random_texts

BEGINS_WITH_A_SPACE = {"prefixed_bytes", "llama2_style", "unigram"}


def kept(name: str, text: str) -> bytes:
    """Return what the tokenizers of a family make of a text."""
    return (normalize("NFC", text) if name == "qwen_style" else text).encode()


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokens_of_a_text_are_its_bytes(name: str) -> None:
    tokenizer = FAMILIES[name]()
    tokens = TokenBytes.of(tokenizer, name)
    assert tokens.has_dummy_space == (name in BEGINS_WITH_A_SPACE)
    for text in random_texts(seed=1, count=150):
        text = text.replace("<", "(")  # no markers
        written = tokens.text_bytes(ids_of(tokenizer, text))
        assert written == kept(name, text) or (tokens.has_dummy_space and b" " + written == kept(name, text)), text


@pytest.mark.parametrize("name", FAMILIES)
def test_special_tokens_and_ids_beyond_the_vocabulary_are_no_text(name: str) -> None:
    tokenizer = FAMILIES[name]()
    tokens = TokenBytes.of(tokenizer, name)
    known = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    assert len(tokens) == len(tokenizer)
    for token_id in (-100, -1, *range(len(tokenizer) + 3)):
        if token_id in known:
            assert tokens[token_id]
        elif token_id not in known:
            assert tokens[token_id] is None, token_id
    ids = ids_of(tokenizer, "one")
    with_markers = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, len(tokenizer) + 5]
    assert tokens.text_bytes(with_markers) == tokens.text_bytes(ids) == b"one"
    assert tokens.text_bytes([]) == b""


def test_only_what_composes_accents_warns() -> None:
    warned = {name for name, make in FAMILIES.items() if "NFC" in TokenBytes.of(make(), name).warning}
    assert warned == {"qwen_style"}
    assert {name for name, make in FAMILIES.items() if TokenBytes.of(make(), name).warning} == warned


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tokenizer_is_the_same_afterwards_and_its_limits_do_not_matter(name: str) -> None:
    backend = Tokenizer.from_str(FAMILIES[name]().backend_tokenizer.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    before = backend.to_str()
    tokens, straight = TokenBytes.of(backend, name), TokenBytes.of(FAMILIES[name](), name)
    assert backend.to_str() == before and not backend.encode_special_tokens
    assert [tokens[token_id] for token_id in range(len(tokens))] == [
        straight[token_id] for token_id in range(len(tokens))
    ]


@pytest.mark.parametrize(
    ("name", "lost"), list(zip(REFUSED, ["Hello", "Hello", "½", "½", "'a'", "Hello"], strict=True))
)
def test_tokenizers_that_do_not_keep_texts_are_refused_with_the_text_they_lose(name: str, lost: str) -> None:
    with pytest.raises(UserError) as refusal:
        TokenBytes.of(REFUSED[name](), "the aug 'x'")
    message = str(refusal.value)
    assert "comes back as ' " not in message  # the space before a text is no fault
    assert message.startswith("the tokenizer of the aug 'x' does not keep texts: ")
    assert lost in message and "comes back as" in message and "compose models" in message and "\n" not in message


def test_tokenizers_in_python_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^the tokenizer of the anchor \(ByT5Tokenizer\) is not one of the `tokenizers`"
    ):
        TokenBytes.of(ByT5Tokenizer(), "the anchor")
