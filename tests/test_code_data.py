"""Code data: what a build promises, checked on the files it writes from a small tree."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_builders.code import build as code_corpus
from data_builders.code import sources as code_sources
from data_builders.code.build import build
from data_builders.code.functions import find_functions, parse
from data_builders.code.overlap import CodeOverlapIndex
from data_builders.code.scan import scan
from data_builders.errors import UserError
from data_builders.hashing import draw
from data_builders.manifest import read_manifest
from data_builders.progress import Progress
from evals.codexglue import CodeXGLUETask
from tests.code_tree import (
    MBPP_CODE,
    PROMPT,
    SOLUTION,
    TRAINING,
    VALIDATION,
    files,
    left_out,
    module,
    rows,
    settings,
    write_test_sets,
    write_tree,
)


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_sets(tmp_path_factory.mktemp("tests"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("source") / "tree")


@pytest.fixture(scope="module")
def built(tree: Path, tests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("code") / "data"
    build(settings(tree, tests, vocab_size=600), out, workers=1)
    return out


def test_no_file_is_in_training_and_in_validation(built: Path) -> None:
    training, held_out = files(built, *TRAINING), files(built, *VALIDATION)
    assert not training & held_out
    assert len(training | held_out) == 25
    assert files(built, "aug_train") | files(built, "code_validation") == (training | held_out) - {"tree/README.md"}


def test_rows_are_what_their_files_say(built: Path, tree: Path) -> None:
    for row in rows(built, "aug_train"):
        text = (tree.parent / row["meta"]["file"]).read_text()
        if row["meta"]["kind"] == "code":
            assert row["text"] == text
    pairs = rows(built, "pairs_train")
    assert {row["prompt"] + row["completion"] for row in pairs} == {
        row["text"] for row in rows(built, "aug_train") if row["meta"]["kind"] == "pair"
    }
    for row in pairs:
        code, cue = row["prompt"].rsplit("\n", 1)
        assert cue == "# Summary:" and '"""' not in code
        assert all(line in (tree.parent / row["meta"]["file"]).read_text() for line in code.split("\n"))
        assert row["completion"].startswith(" Return the ") and row["completion"].endswith(" of them .")


def test_prose_has_docstrings_comments_and_documents_and_no_code(built: Path) -> None:
    prose = rows(built, "anchor_train") + rows(built, "prose_validation")
    assert {row["meta"]["kind"] for row in prose} == {"docstring", "comment", "document"}
    assert not any(">>>" in row["text"] or "def " in row["text"] for row in prose)
    assert len({row["text"] for row in prose}) == len(prose)


def test_d_c_is_a_share_of_the_training_files_with_their_pairs(built: Path, tree: Path) -> None:
    code = {row["id"]: len(row["text"].encode()) for row in rows(built, "aug_train") if row["meta"]["kind"] == "code"}
    chosen = [row for row in rows(built, "dc") if row["meta"]["kind"] == "code"]
    assert {row["id"] for row in chosen} < set(code)
    size = sum(code[row["id"]] for row in chosen)
    assert 0.2 <= size / sum(code.values()) < 0.2 + max(code.values()) / sum(code.values())
    assert files(built, "dc_pairs") == {row["meta"]["file"] for row in chosen}
    assert {row["id"] for row in rows(built, "dc")} == {row["id"] for row in [*chosen, *rows(built, "dc_pairs")]}


def test_d_c_can_be_what_no_model_was_trained_on(built: Path, tree: Path, tests: Path, tmp_path: Path) -> None:
    build(settings(tree, tests, dc_unseen=True), tmp_path / "out", workers=1)
    chosen = files(tmp_path / "out", "dc", "dc_pairs")
    assert chosen == files(built, "dc") and not chosen & files(
        tmp_path / "out", "aug_train", "anchor_train", "pairs_train"
    )
    for name in ("aug_train", "anchor_train", "pairs_train"):
        kept = [row["id"] for row in rows(built, name) if row["meta"]["file"] not in chosen]
        assert [row["id"] for row in rows(tmp_path / "out", name)] == kept
    for name in ("dc", "code_validation", "prose_validation", "dc_validation"):
        assert rows(tmp_path / "out", name) == rows(built, name)


def test_shares_of_pairs_are_settings(tree: Path, tests: Path, tmp_path: Path) -> None:
    build(settings(tree, tests, aug_pairs=0.0, anchor_pairs=0.5, dc_pairs_share=0.5), tmp_path / "out", workers=1)
    num_pairs = len(rows(tmp_path / "out", "pairs_train"))
    in_part = {
        name: sum(row["meta"]["kind"] == "pair" for row in rows(tmp_path / "out", name))
        for name in ("aug_train", "anchor_train", "dc")
    }
    assert in_part["aug_train"] == 0
    assert 0.35 < in_part["anchor_train"] / num_pairs < 0.65
    assert in_part["dc"] == len(rows(tmp_path / "out", "dc_pairs")) == round(0.5 * num_pairs)


def test_held_out_functions_are_read_by_the_evaluation_in_the_words_of_the_pairs(built: Path) -> None:
    task = CodeXGLUETask()
    requests = task.requests(task.load(built / "codexglue"))
    pairs = {row["prompt"]: row["completion"] for row in rows(built, "pairs_validation")}
    assert len(requests) == len(pairs) - 10
    assert {request.prompt: request.reference for request in requests}.items() < pairs.items()


@pytest.mark.slow
def test_number_of_processes_changes_nothing_and_the_seed_does(built: Path, tree: Path, tests: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(code_sources, "BATCH_BYTES", 12_000)
    config = settings(tree, tests)
    one = build(config, tmp_path / "one", workers=1)
    assert one["files"] == build(config, tmp_path / "two", workers=2)["files"]
    assert one["sources"] == read_manifest(built)["sources"]
    other = build(replace(config, seed=1), tmp_path / "other", workers=1)
    assert other["files"]["aug_train.parquet"] != one["files"]["aug_train.parquet"]


def test_interrupted_build_goes_on_after_its_last_batch(built: Path, tree: Path, tests: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(code_sources, "BATCH_BYTES", 12_000)
    config = settings(tree, tests)
    straight = build(config, tmp_path / "straight", workers=1)
    scanned: list[int] = []

    def interrupted(index: CodeOverlapIndex, batch: code_sources.Batch, **options: object) -> object:
        if len(scanned) == 3:
            raise KeyboardInterrupt
        scanned.append(batch.index)
        return scan(index, batch, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(code_corpus, "scan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(config, tmp_path / "out", workers=1)
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".work").glob("*.parquet")}
    assert len(shards) == 6
    monkeypatch.setattr(code_corpus, "scan", scan)
    kept: dict[Path, int] = {}

    def look(line: str) -> None:
        if line.startswith("scanned"):
            kept.update({path: path.stat().st_mtime_ns for path in shards})

    assert build(config, tmp_path / "out", Progress(look), workers=1)["files"] == straight["files"]
    assert kept == shards and not (tmp_path / "out" / ".work").exists()


def test_every_filter_counts_what_it_leaves_out(tree: Path, tests: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "tree", count=20)
    base = module("zebras")
    planted = {
        "too_small": b"x = 1\n",
        "too_large": (base * 60).encode(),
        "long_line": (base + f"letters = '{'a b ' * 500}'\n").encode(),
        "few_alphanumerics": b"x = [\n" + b"    (), [], {}, (), [], {},\n" * 20 + b"]\n",
        "generated": b"# Generated by a program. DO NOT EDIT.\n" + module("yaks").encode(),
        "undecodable": module("whales").encode() + "# caf\xe9\n".encode("latin-1"),
        "syntax_error": module("voles").encode() + b"print 'of another age'\n",
        "licence_other": b"# SPDX-License-Identifier: GPL-3.0-only\n" + module("toads").encode(),
        "overlap_humaneval": (module("swans") + PROMPT + SOLUTION).encode(),
        "overlap_mbpp": (module("rams") + MBPP_CODE.replace("    ", "\t") + "\n").encode(),
        "overlap_codexglue": b"# Draws the outline of every polygon that the canvas was given since the last flush.\n"
        + module("quails").encode(),
    }
    for reason, content in planted.items():
        (source / f"{reason}.py").write_bytes(content)
    original = next(source.glob("edges*.py")).read_text()
    (source / "zz_copy.py").write_text(original)
    (source / "zz_like.py").write_text(original.replace("\n\n\n", "\n\n") + "\nIS_LATER = True\n")
    manifest = build(settings(source, tests, max_bytes=100_000), tmp_path / "out", workers=1)
    expected = Counter(dict.fromkeys(planted, 1)) + Counter(duplicate=1, near_duplicate=1)
    assert left_out(manifest) == expected
    assert manifest["overlap"] == {"humaneval": 0, "mbpp": 0, "codexglue": 0}
    for name in (*TRAINING, *VALIDATION):
        text = "\n".join(str(list(row.values())) for row in rows(tmp_path / "out", name))
        assert not any(leak in text for leak in ("weighted_letter_sum", "longest_even_run", "outline of every polygon"))


def test_test_sets_that_are_turned_off_are_not_compared_with(tests: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "tree", count=20)
    (source / "solution.py").write_text(module("swans") + PROMPT + SOLUTION)
    config = settings(source, tests, humaneval="off")
    manifest = build(config, tmp_path / "out", workers=1)
    assert left_out(manifest) == {} and set(manifest["overlap"]) == {"mbpp", "codexglue"}


def test_build_that_lets_a_test_item_through_fails_its_own_check(tree: Path, tests: Path, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    source = write_tree(tmp_path / "tree", count=20)
    (source / "solution.py").write_text(module("swans") + PROMPT + SOLUTION)

    def blind(index: CodeOverlapIndex, batch: code_sources.Batch, **options: object) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(CodeOverlapIndex, "find", lambda self, ids: None)
            patch.setattr(CodeOverlapIndex, "find_function", lambda self, function: None)
            return scan(index, batch, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(code_corpus, "scan", blind)
    with pytest.raises(UserError, match="texts of the test sets are in the files"):
        build(settings(source, tests), tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_function_of_a_training_file_is_not_held_out(built: Path, tree: Path, tests: Path, tmp_path: Path) -> None:
    """Not even where it made no pair there: validation would ask for what was learned."""
    held_out = rows(built, "pairs_validation")
    copied, reworded, *_ = (row["id"].rpartition("#")[2].partition(":")[0] for row in held_out)
    source = write_tree(tmp_path / "tree")
    taken = next(row["meta"]["file"] for row in held_out)
    text = (tree.parent / taken).read_text()
    functions = {each.name: each.original for each in find_functions(parse(text), text)}
    code = re.sub('""".*"""', '"""Twice."""', functions[copied], flags=re.DOTALL).replace(copied, f"test_{copied}")
    summary = functions[reworded].partition("\n    # ")[0].replace(reworded, "test_other") + "\n    return None\n"
    name = next(name for name in map("later{}.py".format, range(99)) if draw(0, "validation", f"tree/{name}") > 0.2)
    (source / name).write_text(f"{module('camels')}\n\n{code}\n\n\n{summary}")
    manifest = build(settings(source, tests), tmp_path / "out", workers=1)
    left = {row["id"] for row in held_out} - {row["id"] for row in rows(tmp_path / "out", "pairs_validation")}
    assert {each.rpartition("#")[2].partition(":")[0] for each in left} == {copied, reworded}
    assert manifest["counts"]["texts_left_out"]["pair_in_training"] == 2
