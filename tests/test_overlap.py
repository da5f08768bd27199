"""Overlap with a test set is found: exact, after small edits, inside longer text, in any script; and not elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_builders.ntl.overlap import EXACT, NEAR, NONE, OverlapIndex, marks, normalise
from tests.ntl_corpora import ALPHABETS, sentences

TEST = {code: sentences(code, 300, "devtest") for code in ALPHABETS}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> OverlapIndex:
    everything = [sentence for lines in TEST.values() for sentence in lines]
    return OverlapIndex.build(everything, tmp_path_factory.mktemp("index"), 0.5)


def find(index: OverlapIndex, texts: list[str]) -> list[int]:
    normalised = [normalise(text) for text in texts]
    return index.find(normalised, marks(normalised)).tolist()


def test_case_punctuation_spaces_and_unicode_forms_do_not_hide_a_sentence(index: OverlapIndex) -> None:
    english, hindi = TEST["eng_Latn"][7], TEST["hin_Deva"][7]
    wide = "".join(chr(ord(char) + 0xFEE0) if char.isascii() and char.isalnum() else char for char in english)
    texts = [english.upper(), f"«{english.replace(' ', '  ')}»!", wide, hindi.replace(".", " ।"), "12345", "", "?!"]
    assert find(index, texts) == [EXACT] * 4 + [NONE] * 3


@pytest.mark.parametrize("code", ALPHABETS)
def test_edited_and_embedded_sentences_are_near_duplicates(index: OverlapIndex, code: str) -> None:
    edited, embedded, others = [], [], []
    # Shorter ones have too few shingles to be told from a phrase: there, only exact overlap counts.
    chosen = [sentence for sentence in TEST[code] if len(normalise(sentence)) > 40][:100]
    for row, sentence in enumerate(chosen):
        words = sentence.split()
        middle = len(words) // 2
        edited.append(" ".join([*words[:middle], words[0], *words[middle + 1 :]]))
        embedded.append(f"{sentences(code, 300)[row]} {sentence} {sentences(code, 300)[row + 100]}")
        others.append(sentences(code, 300)[row])
    assert find(index, embedded) == [NEAR] * 100
    assert find(index, others) == [NONE] * 100
    # One of about ten words is another: all but short sentences keep half of their shingles.
    found = np.array(find(index, edited))
    longer = np.array([len(normalise(sentence)) > 60 for sentence in chosen])
    assert longer.sum() > 20 and (found[longer] > NONE).all()


def test_the_search_agrees_with_comparing_every_pair(index: OverlapIndex) -> None:
    """Winnowing and batches lose nothing: of texts spliced from test sentences, the same are near-duplicates."""
    rng = np.random.default_rng(0)
    lines = TEST["eng_Latn"]
    texts = []
    for _ in range(150):
        own = sentences("eng_Latn", 300)[rng.integers(300)]
        cut = lines[rng.integers(300)]
        start, length = rng.integers(0, 20), rng.integers(5, 60)
        texts.append(f"{own[: rng.integers(5, 60)]} {cut[start : start + length]}")

    def shingles(text: str) -> set[bytes]:
        content = normalise(text)
        return {content[place : place + 12] for place in range(len(content) - 11)}

    test = [shingles(line) for each in TEST.values() for line in each]

    def is_near(text: str) -> bool:
        ours = shingles(text)
        return any(len(ours & theirs) >= max(20, 0.5 * min(len(ours), len(theirs))) for theirs in test)

    expected = [is_near(text) for text in texts]
    assert 20 < sum(expected) < 130
    assert [found > NONE for found in find(index, texts)] == expected


def test_an_index_reopens_and_an_empty_one_finds_nothing(index: OverlapIndex, tmp_path: Path) -> None:
    OverlapIndex.build(TEST["fra_Latn"], tmp_path / "one", 0.5)
    assert OverlapIndex.is_built(tmp_path / "one") and not OverlapIndex.is_built(tmp_path / "two")
    assert find(OverlapIndex.open(tmp_path / "one", 0.5), list(TEST["fra_Latn"][:3])) == [EXACT] * 3
    assert find(OverlapIndex.build([], tmp_path / "two", 0.5), list(TEST["fra_Latn"][:3])) == [NONE] * 3
