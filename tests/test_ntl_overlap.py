"""Overlap with FLORES is found: exact, after small edits, inside longer text, in any script; and removed entirely."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from calmctl.cli.main import main
from data_builders.benchmarks.flores import read_flores
from data_builders.build import count_in_tables
from data_builders.manifest import read_manifest
from data_builders.ntl.build import NTLDataConfig, build
from data_builders.ntl.overlap import (
    EXACT,
    NEAR,
    NONE,
    IndexPlace,
    OverlapIndex,
    count_overlaps,
    index_flores,
    marks,
    normalise,
    open_index,
)
from data_builders.progress import Progress
from data_builders.workers import Workers
from tests.ntl_corpora import ALPHABETS, FILES, LANGUAGES, sentences, texts, write_corpora, write_lines
from tests.real_data import real_data

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


def planted(tmp_path: Path) -> tuple[NTLDataConfig, set[str]]:
    """Put test sentences into five rows of the corpus; return the settings and every sentence of these rows."""
    config = write_corpora(tmp_path)
    lines = {code: list(sentences(code, 300)) for code in ("eng_Latn", *LANGUAGES)}
    test = {code: sentences(code, 1012, "devtest") for code in (*lines, "fra_Latn")}
    lines["eng_Latn"][10] = test["eng_Latn"][500]
    lines["lij_Latn"][20] = test["lij_Latn"][0].upper().replace(" ", " - ")
    lines["fur_Latn"][30] = sentences("fur_Latn", 997, "dev")[996]
    long = max(test["eng_Latn"], key=len).split()
    lines["eng_Latn"][40] = " ".join([*long[:6], "changed", *long[7:]])
    lines["fur_Latn"][50] = f"{lines['fur_Latn'][50]} {max(test['fra_Latn'], key=len)} {lines['fur_Latn'][51]}"
    for code, changed in lines.items():
        write_lines(tmp_path / "seed" / f"{code}.gz", changed)
    return config, {changed[row] for changed in lines.values() for row in (10, 20, 30, 40, 50)}


def test_what_overlaps_with_flores_is_removed_with_its_translations_and_counted(tmp_path: Path) -> None:
    config, removed = planted(tmp_path)
    overlap = build(config, tmp_path / "data", workers=1)["overlap"]
    assert overlap["removed"]["aug"] == {
        "exact": {"eng_Latn": 1, "lij_Latn": 1, "fur_Latn": 1},
        "near": {"eng_Latn": 1, "fur_Latn": 1},
        "removed_rows": 5,
    }
    assert overlap["removed"]["anchor"] == {"exact": {"eng_Latn": 1}, "near": {"eng_Latn": 1}, "removed_rows": 2}
    assert overlap["left"] == {"exact": 0, "near": 0} and overlap["flores"]["sentences"] == 4 * 2009
    everything = "\n".join(
        text for name in FILES for text in texts(tmp_path / "data", name) if "aug" in name or "dc" in name
    )
    assert not [sentence for sentence in removed if sentence in everything]
    # The languages of the data are compared whatever others are asked for.
    fewer = build(replace(config, flores_languages=("eng_Latn",)), tmp_path / "fewer", workers=1)["overlap"]
    assert fewer["removed"]["aug"]["exact"] == {"eng_Latn": 1, "lij_Latn": 1, "fur_Latn": 1}
    unchecked = build(replace(config, check_overlap=False, flores=None), tmp_path / "all", workers=1)
    assert unchecked["overlap"] == {"checked": False}
    assert (
        unchecked["files"]["aug_train.parquet"]["rows"]
        > read_manifest(tmp_path / "data")["files"]["aug_train.parquet"]["rows"]
    )


def test_the_search_of_the_written_files_finds_what_was_not_removed(tmp_path: Path) -> None:
    config, _ = planted(tmp_path)
    build(
        replace(
            config,
            check_overlap=False,
            validation_fraction=0.1,
            num_validation_rows=10**6,
            aug=replace(config.aug, max_rows=60),
        ),
        tmp_path / "all",
        workers=1,
    )
    place = IndexPlace(tmp_path / "index", 0.5)
    index_flores(read_flores(tmp_path / "flores", config.flores_languages), place)
    files = [tmp_path / "all" / f"aug_{split}.parquet" for split in ("train", "validation")]
    workers = Workers(1, partial(open_index, place))
    assert count_in_tables(files, count_overlaps, workers, Progress()) == {"exact": 3, "near": 2}


def test_the_real_corpora_without_what_is_in_flores(tmp_path: Path) -> None:
    """The smoke preset over real text; overlap is compared again in another way, on words."""
    data = real_data("nllb_seed").parent
    out = tmp_path / "out"
    assert main(["data", "ntl", "--preset", "smoke", "--data", str(data), "--workers", "1", "--out", str(out)]) == 0
    manifest = read_manifest(out)
    assert manifest["overlap"]["left"] == {"exact": 0, "near": 0}
    assert manifest["sentences"]["aug"]["sentences"] == {"eng_Latn": 500, "lij_Latn": 500, "fur_Latn": 500}
    assert manifest["sentences"]["anchor"]["rows"] == 1000
    flores = read_flores(data / "flores200", ("eng_Latn", "lij_Latn", "fur_Latn", "fra_Latn"))
    test = {
        frozenset(line.casefold().split())
        for splits in flores.sentences.values()
        for lines in splits.values()
        for line in lines
    }
    train = {
        frozenset(part.casefold().split())
        for name in FILES
        for text in texts(out, name)
        for part in re.split(r"\n?[^\n:]* sentence: ", text)
    }
    assert not test & train
