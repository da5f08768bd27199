"""The low-resource language data: what is in each file, what is kept apart, and equal bytes of equal settings."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from calmctl.cli.main import main
from calmctl.training.examples import load_examples
from calmctl.training.settings import TrainSettings
from data_builders.errors import UserError
from data_builders.manifest import read_manifest, verify_files
from data_builders.ntl.build import CorporaConfig, NTLDataConfig, build
from data_builders.ntl.translation_text import answer, question
from data_builders.progress import Progress
from evals.flores import FloresTask
from tests.ntl_corpora import FILES, LANGUAGES, rows, sentences, texts, with_aug, write_corpora, write_lines, write_seed


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> NTLDataConfig:
    return write_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def folder(corpora: NTLDataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ntl") / "data"
    build(corpora, out, workers=1)
    return out


def interrupted_at(start: str) -> Progress:
    """Return what interrupts a build once it reports a line that begins so."""

    def interrupt(line: str) -> None:
        if line.startswith(start):
            raise KeyboardInterrupt

    return Progress(interrupt)


def test_the_aug_learns_text_and_both_directions_of_every_pair(folder: Path) -> None:
    found = rows(folder, "aug_train")
    lines = {code: sentences(code, 300) for code in ("eng_Latn", *LANGUAGES)}
    for row in found[:100]:
        corpus, number, languages = row["id"].split("/")
        source, _, target = languages.partition("-")
        text = lines[source][int(number)]
        if target:
            text = question(source, target, text) + answer(lines[target][int(number)])
        assert (corpus, row["text"]) == ("seed", text)
        kind = "translation" if target else "text"
        assert row["meta"] == {"kind": kind, "source": source, "target": target or source}
    kinds = Counter((row["meta"]["kind"], row["meta"]["source"], row["meta"]["target"]) for row in found)
    assert set(kinds.values()) == {len(found) // 6} and 250 < len(found) // 6 < 290
    assert len({row["id"] for row in found}) == len(found)
    of_text = {row["meta"]["source"] for row in rows(folder, "anchor_train") if row["meta"]["kind"] == "text"}
    assert of_text == {"eng_Latn"}


def test_tests_are_of_languages_that_are_trained_on_and_of_others_and_of_sentences_in_no_other_file(
    corpora: NTLDataConfig, tmp_path: Path
) -> None:
    aug = replace(corpora.aug, languages=("lij_Latn",), directions="into_pivots")
    settings = {"test_fraction": 0.1, "num_test_rows": 12, "unseen_languages": ("fur_Latn",), "composition_once": True}
    build(replace(corpora, aug=aug, **settings), tmp_path / "data", workers=1)
    tests = {name: rows(tmp_path / "data", name) for name in ("seen_test", "unseen_test")}
    for name, code in (("seen_test", "lij_Latn"), ("unseen_test", "fur_Latn")):
        assert len(tests[name]) == 12
        assert {(row["meta"]["source"], row["meta"]["target"]) for row in tests[name]} == {(code, "eng_Latn")}
        tested = {row["completion"].strip() for row in tests[name]}
        for other in FILES:
            assert not [text for text in texts(tmp_path / "data", other) if any(line in text for line in tested)], other
    assert not [row for name in FILES for row in rows(tmp_path / "data", name) if "fur_Latn" in row["id"]]
    composition = rows(tmp_path / "data", "dc_train")
    places = [row["id"].rpartition("/") for row in composition]
    held = [(place, code) for place, _, codes in places for code in codes.split("-")]
    assert len(set(held)) == len(held) >= len(composition) > 0


def test_validation_holds_no_source_of_a_test_and_unseen_languages_are_in_no_corpus_of_the_anchor(
    corpora: NTLDataConfig, tmp_path: Path
) -> None:
    english = zip(*(sentences("eng_Latn", 60, f"side{number}") for number in range(4)), strict=True)
    ligurian = sentences("lij_Latn", 60, "pairs")
    pairs = [f"{ours}\t{theirs}" for ours, others in zip(ligurian, english, strict=True) for theirs in others]
    write_lines(tmp_path / "own" / "lij-eng.tsv", pairs)
    aug = replace(corpora.aug, parallel=(str(tmp_path / "own"),), languages=("lij_Latn",), directions="into_pivots")
    settings = {"test_fraction": 0.2, "validation_fraction": 0.3, "composition_once": True}
    build(replace(corpora, aug=aug, **settings), tmp_path / "data", workers=1)
    tested = {row["prompt"].partition("\n")[0] for row in rows(tmp_path / "data", "seen_test")}
    for name in FILES:
        assert not [text for text in texts(tmp_path / "data", name) if any(line in text for line in tested)], name
    seen = replace(corpora.anchor, parallel=corpora.aug.parallel, languages=(), text_languages=None)
    unseen = {"unseen_languages": ("fur_Latn",), "test_fraction": 0.1}
    lij = replace(corpora.aug, languages=("lij_Latn",))
    with pytest.raises(UserError, match="unseen_languages: anchor is trained on fur_Latn"):
        build(replace(corpora, aug=lij, anchor=seen, **unseen), tmp_path / "refused", workers=1)
    with pytest.raises(UserError, match="no row of lij_Latn is held out"):
        build(replace(corpora, aug=lij, test_fraction=1e-6), tmp_path / "none", workers=1)


def test_composition_data_is_a_part_of_the_others(folder: Path, corpora: NTLDataConfig) -> None:
    aug, anchor = set(texts(folder, "aug_train")), set(texts(folder, "anchor_train"))
    found = texts(folder, "dc_train")
    from_aug = [text for text in found if text in aug]
    assert len(from_aug) == round(0.05 * len(aug))
    assert len(found) - len(from_aug) == round(len(from_aug) * 0.2 / 0.8)
    assert set(found) <= aug | anchor and len(set(found)) == len(found)


def test_no_training_file_holds_a_sentence_of_a_validation_file(folder: Path) -> None:
    """Not even the English side of another language's pair."""

    def found(name: str) -> set[str]:
        parts = (re.split(r"\n?[^\n:]* sentence: ", text) for text in texts(folder, name))
        return {part for each in parts for part in each if part}

    training = found("aug_train") | found("anchor_train") | found("dc_train")
    for name in ("aug_validation", "anchor_validation", "dc_validation"):
        assert found(name) and not found(name) & training


def test_composition_data_can_be_what_no_model_was_trained_on(corpora: NTLDataConfig, tmp_path: Path) -> None:
    build(replace(corpora, composition_unseen=0.2, high_resource_share=0.3), tmp_path / "data", workers=1)
    of_file = {name: rows(tmp_path / "data", name) for name in FILES}
    numbers = {
        name: {row["id"].split("/")[1] for row in found if "seed" in row["id"]} for name, found in of_file.items()
    }
    assert len(of_file["dc_train"]) == round(round(0.05 * len(of_file["aug_train"])) / 0.7)
    assert len(numbers["dc_train"]) > 30
    for name in ("aug_train", "anchor_train", "aug_validation", "anchor_validation", "dc_validation"):
        assert numbers[name] and not numbers["dc_train"] & numbers[name]
    with pytest.raises(
        UserError, match=r"composition_unseen: 0.01 leaves \d+ rows for D_C, and composition_fraction=0.5"
    ):
        build(replace(corpora, composition_unseen=0.01, composition_fraction=0.5), tmp_path / "few", workers=1)


def test_the_trainer_reads_every_file_with_the_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == ("<eos>", "<pad>", 600)
    for name in FILES:
        examples = load_examples(folder / f"{name}.parquet", tokenizer, TrainSettings())
        text = texts(folder, name)[3]
        assert tokenizer.decode(examples.example(3)) == f"{text}<eos>"
        assert ("prompt" in rows(folder, name)[0]) == name.startswith("dc")
    assert tokenizer.decode(tokenizer("ⵜ नमस्ते\n 12").input_ids) == "ⵜ नमस्ते\n 12"


def test_prompts_are_those_of_the_evaluation(corpora: NTLDataConfig, tmp_path: Path) -> None:
    build(replace(corpora, max_shots=5, composition_kinds=("translation",)), tmp_path / "data", workers=1)
    shots = Counter(row["prompt"].count("\n\n") for row in rows(tmp_path / "data", "dc_train"))
    assert set(shots) == {0, 1, 2, 3, 4, 5}
    task = FloresTask(shots=5, languages=("lij_Latn",))
    (record,) = task.load(Path(corpora.data_folder or "") / "flores", limit=1)
    (request,) = task.requests([record])
    asked = "".join(request.shots) + request.prompt
    form = re.compile(r"(?<=sentence: ).*(?=\n)|(?<=English sentence: ).*")
    row = next(
        row
        for row in rows(tmp_path / "data", "dc_train")
        if row["prompt"].count("\n\n") == 5 and row["meta"]["source"] == "lij_Latn"
    )
    assert form.sub("...", row["prompt"]) == form.sub("...", asked)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_also_from_two_processes(
    folder: Path, corpora: NTLDataConfig, tmp_path: Path
) -> None:
    assert build(corpora, tmp_path / "again", workers=2)["files"] == read_manifest(folder)["files"]
    other = build(replace(corpora, seed=1), tmp_path / "other", workers=1)
    assert other["files"]["dc_train.parquet"]["sha256"] != read_manifest(folder)["files"]["dc_train.parquet"]["sha256"]
    verify_files(folder, read_manifest(folder))


def test_an_interrupted_build_goes_on_where_it_was(
    folder: Path, corpora: NTLDataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(corpora, tmp_path / "data", interrupted_at("anchor:"), workers=1)
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / ".work").rglob("*.parquet")}
    assert shards
    kept: dict[Path, int] = {}

    def look(line: str) -> None:
        if line.startswith("aug:"):
            kept.update({path: path.stat().st_mtime_ns for path in shards})

    assert build(corpora, tmp_path / "data", Progress(look), workers=1)["files"] == read_manifest(folder)["files"]
    assert kept == shards and not (tmp_path / "data" / ".work").exists()


def test_changed_corpora_or_another_flores_start_an_interrupted_build_again(tmp_path: Path) -> None:
    config = write_corpora(tmp_path)
    for out in ("one", "two"):
        with pytest.raises(KeyboardInterrupt):
            build(config, tmp_path / out, interrupted_at("aug_train"), workers=1)
    lines: list[str] = []
    dev = sentences("eng_Latn", 997, "dev")
    write_lines(tmp_path / "flores" / "dev" / "eng_Latn.dev", [sentences("eng_Latn", 300)[20], *dev[1:]])
    manifest = build(config, tmp_path / "one", Progress(lines.append), workers=1)
    assert manifest["overlap"]["removed"]["aug"]["exact"] == {"eng_Latn": 1}
    write_seed(tmp_path / "seed", 200)
    assert build(config, tmp_path / "two", Progress(lines.append), workers=1)["sentences"]["aug"]["rows"] == 200
    assert sum("changed" in line for line in lines) == 2


def test_a_translation_of_a_held_out_sentence_is_in_no_training_file(
    folder: Path, corpora: NTLDataConfig, tmp_path: Path
) -> None:
    """Not even in a corpus that has it in other words, beside one of its sentences and without the English."""
    write_lines(tmp_path / "more" / "lij_Latn", sentences("lij_Latn", 300))
    write_lines(tmp_path / "more" / "fur_Latn", others := sentences("fur_Latn", 300, "reworded"))
    parallel = (*corpora.aug.parallel, str(tmp_path / "more"))
    manifest = build(replace(corpora, aug=replace(corpora.aug, parallel=parallel)), tmp_path / "data", workers=1)
    held_out = {row["id"].split("/")[1] for row in rows(folder, "aug_validation")}
    training = set(texts(tmp_path / "data", "aug_train"))
    assert len(held_out) > 10 and not training & {others[int(row)] for row in held_out}
    assert len(training & set(others)) > 200
    counted, written = manifest["held_out"]["aug"], manifest["files"]["aug_train.parquet"]["rows"]
    # Of 300 aligned rows with six rows each, and as many with two, nothing is lost without being counted.
    assert counted["training_rows_left_out"] > 20
    assert counted["rows"] + counted["training_rows_left_out"] + written == 300 * 6 + 300 * 2


REFUSED: dict[str, tuple[list[str], str]] = {
    "no corpora": (["aug.parallel=[]"], "aug.parallel: name the corpora"),
    "no flores": (["flores=null"], "set check_overlap=false"),
    "flores is missing": (["flores=nowhere"], "flores: .*nowhere: no such folder"),
    "language": (["aug.languages=[lij_Latm]"], "'lij_Latm'"),
    "scripts": (["max_tokens_per_character=0.2"], "vocab_size: 600: too small for the scripts: .* tokens a character"),
    "vocabulary": (["vocab_size=200"], "vocab_size: 200 is too small for the 256 bytes"),
    "share": (["validation_fraction=1.5"], "validation_fraction: 1.5 must lie between 0 and 1"),
    "unseen": (["composition_unseen=0.95"], "composition_unseen: 0.95 must be 0 or more, and leave rows"),
    "kinds": (["composition_kinds=[words]"], "composition_kinds"),
    "tokenizer": (["tokenizer=/nowhere/at/all"], "tokenizer: '/nowhere/at/all' cannot be loaded"),
    "everything too long": (["max_characters=3"], "aug_train.parquet: no rows are left"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    name: str, corpora: NTLDataConfig, tmp_path: Path, capsys: Any
) -> None:
    overrides, message = REFUSED[name]
    assert main(command(corpora, tmp_path / "out", *overrides)) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("calmctl: error: ") and re.search(message, line), line


def command(corpora: NTLDataConfig, out: Path, *overrides: str) -> list[str]:
    settings = [
        "aug.parallel=[seed]",
        "anchor.parallel=[seed,ntrex]",
        "flores=flores",
        "validation_fraction=0.1",
        "vocab_size=600",
    ]
    options = ["--preset", "smoke", "--data", str(corpora.data_folder), "--workers", "1", "--out", str(out)]
    return ["data", "ntl", *options, *settings, *overrides]


def test_the_command_builds_prints_and_does_nothing_the_second_time(
    corpora: NTLDataConfig, tmp_path: Path, capsys: Any
) -> None:
    assert main([*command(corpora, tmp_path / "out"), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["overlap"]["left"] == {"exact": 0, "near": 0}
    assert set(manifest["counts"]["aug_train"]["translation"]) == {
        pair for code in LANGUAGES for pair in (f"{code}-eng_Latn", f"eng_Latn-{code}")
    }
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "complete"
    assert main(command(corpora, tmp_path / "out")) == 0
    progress = json.loads((tmp_path / "out" / "progress.json").read_text())
    assert progress["stage"] == "row groups compared" and progress["step"] == progress["total"] > 0
    captured = capsys.readouterr()
    assert "aug_train.parquet" in captured.out and "already built" in captured.err
    assert main([*command(corpora, tmp_path / "none"), "--dry-run"]) == 0
    assert not (tmp_path / "none").exists()


def test_text_alone_and_no_anchor(corpora: NTLDataConfig, tmp_path: Path) -> None:
    for code, count in (("lij_Latn", 150), ("fur_Latn", 90)):
        write_lines(tmp_path / "web" / f"pages.{code}", sentences(code, 150, f"web {code}")[:count])
    config = replace(corpora, aug=CorporaConfig(monolingual=(str(tmp_path / "web"),)), anchor=CorporaConfig())
    manifest = build(config, tmp_path / "data", workers=1)
    assert set(manifest["counts"]["aug_train"]) == {"text"} and "anchor_train" not in manifest["counts"]
    parallel = with_aug(corpora, "seed", languages=())
    both = replace(parallel, aug=replace(parallel.aug, monolingual=(str(tmp_path / "web"),)))
    counts = build(both, tmp_path / "both", workers=1)["counts"]["aug_train"]
    assert counts["text"]["lij_Latn"] > counts["translation"]["lij_Latn-eng_Latn"] + 100
