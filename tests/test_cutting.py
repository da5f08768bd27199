"""Cutting: texts become an aug's own tokens and nothing else, and safe places do not depend on what follows."""

import copy
import json
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unicodedata import normalize

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from calmctl.modeling.tokenizers.backend import Backend
from calmctl.modeling.tokenizers.cutting import Cutter
from calmctl.modeling.tokenizers.plain import plain_tokenizer
from calmctl.modeling.tokenizers.token_bytes import TokenBytes
from tests.tokenizer_families import (
    FAMILIES,
    SAMPLE,
    SPACE,
    gpt2_style,
    llama2_style,
    random_texts,
    tiny_bytes,
    unigram,
)

TOKENIZERS = {name: make() for name, make in FAMILIES.items()}
CUTTERS = {name: Cutter(tokenizer.backend_tokenizer) for name, tokenizer in TOKENIZERS.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_is_the_text_and_nothing_but_the_text(name: str) -> None:
    tokens = TokenBytes.of(TOKENIZERS[name], name)
    naturally = plain_tokenizer(TOKENIZERS[name].backend_tokenizer)
    special = set(TOKENIZERS[name].all_special_ids)
    for text in random_texts(seed=2, count=150):
        inside, whole = (CUTTERS[name].cut(text, begins) for begins in (False, True))
        expected = (normalize("NFC", text) if name == "qwen_style" else text).encode()
        assert not special & {*inside, *whole}, text
        assert b"".join(tokens[token_id] or b"" for token_id in inside) == tokens.text_bytes(whole) == expected, text
        if not text.startswith(" ") and "<" not in text:  # no markers
            assert whole == tuple(naturally.encode(text, add_special_tokens=False).ids), text


@pytest.mark.parametrize("name", FAMILIES)
def test_markers_spelt_out_are_text(name: str) -> None:
    tokens = TokenBytes.of(TOKENIZERS[name], name)
    for marker in (*TOKENIZERS[name].all_special_tokens, "</s></s>", "a <|im_end|>\n", "<s>"):
        for begins in (True, False):
            cut = CUTTERS[name].cut(marker, begins)
            assert b"".join(tokens[token_id] or b"" for token_id in cut).decode().removeprefix(" ") == marker


@pytest.mark.parametrize("name", FAMILIES)
def test_text_that_comes_piece_by_piece_is_cut_as_at_once(name: str) -> None:
    cutter, rng = CUTTERS[name], random.Random(3)
    for text in random_texts(seed=4, count=80):
        done: tuple[int, ...] = ()
        start = 0
        for end in sorted(rng.choices(range(len(text) + 1), k=12)):
            place = cutter.safe_splits(text[start:end])
            done += cutter.cut(text[start : start + place], start == 0) if place else ()
            start += place
            assert done + cutter.cut(text[start:end], start == 0) == cutter.cut(text[:end], True), (text, start, end)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "across_words"])
def test_safe_places_are_found_in_every_script(name: str) -> None:
    for text in SAMPLE:
        place = CUTTERS[name].safe_splits(text)
        assert len(text) - place <= 30, text[place:]


def test_added_tokens_of_several_words_and_of_other_scripts_are_not_split() -> None:
    tokenizer = Tokenizer.from_str(tiny_bytes().backend_tokenizer.to_str())
    tokenizer.add_tokens([AddedToken("def f"), AddedToken("世界")])
    cutter = Cutter(tokenizer)
    assert [cutter.safe_splits(text) for text in ("a def f", "a世界。b", "a世人口")] == [1, 3, 2]


def test_no_place_is_safe_inside_of_tokens_of_several_words() -> None:
    vocabulary = {piece: place for place, piece in enumerate([SPACE, *"ofth", f"{SPACE}t", f"f{SPACE}", f"f{SPACE}t"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("f", SPACE), (f"f{SPACE}", "t")]))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    cutter = Cutter(tokenizer)
    assert cutter.safe_splits("of the") == 0 and cutter.safe_splits("oh the") == 2
    assert cutter.cut("of the", True)[1] == vocabulary[f"f{SPACE}t"]


@pytest.mark.parametrize("name", FAMILIES)
def test_copies_and_threads_cut_the_same(name: str) -> None:
    cutter, texts = CUTTERS[name], list(random_texts(seed=5, count=60))
    expected = [(cutter.cut(text, True), cutter.cut(text, False), cutter.safe_splits(text)) for text in texts]
    for other in (copy.deepcopy(cutter), pickle.loads(pickle.dumps(cutter))):
        with ThreadPoolExecutor(4) as pool:
            begun, inside = (pool.map(other.cut, texts, [begins] * len(texts)) for begins in (True, False))
            assert list(zip(begun, inside, map(other.safe_splits, texts), strict=True)) == expected


PREFIXES: list[tuple[Callable[[], object], dict[str, object]]] = [
    (unigram, {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="always")}),
    (unigram, {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="first")])}),
    (llama2_style, {"normalizer": normalizers.Sequence([
        normalizers.Sequence([normalizers.Prepend(SPACE)]), normalizers.Replace(" ", SPACE)
    ])}),
    (gpt2_style, {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=True)])}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "parts"), PREFIXES)
def test_a_space_of_the_tokenizer_is_at_the_beginning_only(
    make: Callable[[], object], parts: dict[str, object]
) -> None:
    tokenizer = Tokenizer.from_str(make().backend_tokenizer.to_str())
    for part, value in parts.items():
        setattr(tokenizer, part, value)
    cutter = Cutter(tokenizer)
    for text in ("one", "one two", "\none"):
        assert cutter.cut(text, True) == tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        assert cutter.cut(text, True) == cutter.cut(f" {text}", False) != cutter.cut(text, False)
    assert cutter.cut(" one", True) == cutter.cut("  one", False)
    assert cutter.cut("", True) == cutter.cut("", False) == ()


def test_what_a_tokenizer_does_by_chance_or_for_batches_is_left_out() -> None:
    stored = json.loads(gpt2_style().backend_tokenizer.to_str())
    stored["model"]["dropout"] = 0.5
    changed = Tokenizer.from_str(json.dumps(stored))
    changed.enable_truncation(2)
    changed.enable_padding(length=50)
    for text in random_texts(seed=6, count=20):
        assert Cutter(changed).cut(text, True) == CUTTERS["gpt2_style"].cut(text, True)


@pytest.mark.parametrize(("name", "added"), [(name, added) for name in FAMILIES for added in (False, True)])
def test_added_tokens_are_text_unless_they_are_written_as_markers(name: str, added: bool) -> None:
    tokenizer = Tokenizer.from_str(TOKENIZERS[name].backend_tokenizer.to_str())
    markers = [
        AddedToken("<end>", rstrip=True),
        AddedToken("<\uff5cUser\uff5c>"),
        AddedToken("<|fim|>", normalized=False),
    ]
    texts = [AddedToken("<think>"), AddedToken("\n\t\n", special=True), AddedToken("        ", normalized=False)]
    tokenizer.add_tokens([*texts, *markers] if added else [*markers, *texts])
    tokens, cutter = TokenBytes.of(tokenizer, name), Cutter(tokenizer)
    for marker in markers:
        text = f"a{marker.content}  b {marker.content}"
        cut = cutter.cut(text, False)
        token_id = tokenizer.token_to_id(marker.content)
        assert tokens[token_id] is None and token_id not in cut and tokens.text_bytes(cut) == text.encode()
    for token in texts:
        text = f"a{token.content}b"
        assert tokens[tokenizer.token_to_id(token.content)] == token.content.encode()
        assert tokenizer.token_to_id(token.content) in cutter.cut(text, False)
        assert tokens.text_bytes(cutter.cut(text, True)) == text.encode()


def test_a_marker_that_is_a_letter_or_a_word_of_the_vocabulary_too_is_text() -> None:
    tokenizer = Tokenizer.from_str(gpt2_style().backend_tokenizer.to_str())
    for word in ("!", "the"):
        tokenizer.add_tokens([AddedToken(word, special=True)])
        tokens, cutter = TokenBytes.of(tokenizer, "x"), Cutter(tokenizer)
        assert tokens.text_bytes(cutter.cut("the dog! the fox!", True)) == b"the dog! the fox!"


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="Model missing"):
        Backend.read("{}", "the aug")
