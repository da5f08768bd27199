"""Data of the user's own through the commands: several datasets and their shares, and what makes a run the same."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.training.examples import load_examples
from calmctl.training.mixing import MOST_REPEATS, in_shares, joined, load_datasets
from calmctl.training.prepared import hold_out
from data_builders.files import sha256_file, sha256_of
from data_builders.row_sources import RowSource, find_rows, private_name
from data_builders.values import read_json
from tests.additions import SETTINGS, tokenizer, write
from tests.task_data import write_models

__all__ = ["tokenizer"]

TRAIN = "train aug --preset further train.packing=false train.steps=1"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


def counted(path: Path, count: int, begin: int = 0) -> Path:
    """Write a file of rows that all differ."""
    rows = ({"prompt": "solve: 1 + 1 =", "completion": f" {begin + number}"} for number in range(count))
    return write(path, *({**row, "meta": {"n": begin + number}} for number, row in enumerate(rows)))


def test_datasets_one_after_the_other_are_one_dataset(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    one, two = counted(tmp_path / "1.jsonl", 5), counted(tmp_path / "2.jsonl", 3, begin=5)
    whole = counted(tmp_path / "whole.jsonl", 8)
    found = load_datasets([str(one), str(two)], tokenizer, SETTINGS)
    alone = load_examples(whole, tokenizer, SETTINGS)
    for name in ("ids", "starts", "completion_starts", "rows", "learned_bytes"):
        assert np.array_equal(getattr(found, name), getattr(alone, name)), name
    assert found.counts == alone.counts and found.meta["n"].tolist() == list(range(8))
    assert found.dataset_index is not None and found.dataset_index.tolist() == [0] * 5 + [1] * 3
    assert joined([alone]) is alone
    lacking = load_examples(write(tmp_path / "3.jsonl", {"prompt": "1", "completion": "2"}), tokenizer, SETTINGS)
    assert joined([alone, lacking]).meta["n"].tolist() == [*range(8), None]


@pytest.mark.parametrize("sizes, weights", [((10, 10), (1, 1)), ((30, 7), (0.7, 0.3)), ((7, 30), (0.7, 0.3)),
                                            ((5, 9, 40), (2, 1, 1))])  # fmt: skip
def test_shares_are_those_asked_for_and_no_example_is_left_out(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, sizes: tuple[int, ...], weights: tuple[float, ...]
) -> None:
    begins = np.cumsum([0, *sizes])
    files = [counted(tmp_path / f"{n}.jsonl", size, int(begins[n])) for n, size in enumerate(sizes)]
    names = [str(file) for file in files]
    examples = load_datasets(names, tokenizer, SETTINGS)
    train, held_out = hold_out(examples, 0.1, seed=0)
    mixed = in_shares(train, names, weights, seed=1)
    assert mixed.dataset_index is not None
    counts = np.bincount(mixed.dataset_index)
    shares = np.asarray(weights) / sum(weights)
    assert np.allclose(counts / counts.sum(), shares, atol=1 / len(mixed))
    assert set(mixed.meta["n"]) == set(train.meta["n"]) and not set(mixed.meta["n"]) & set(held_out.meta["n"])
    for number in range(len(sizes)):  # all rows of a dataset come equally often, but for one
        often = Counter(mixed.meta["n"][mixed.dataset_index == number].tolist()).values()
        assert max(often) - min(often) <= 1
    assert np.array_equal(mixed.rows, in_shares(train, names, weights, seed=1).rows)


def test_shares_that_make_no_sense_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    names = [str(counted(tmp_path / f"{size}.jsonl", size)) for size in (2, 9)]
    examples = load_datasets(names, tokenizer, SETTINGS)
    with pytest.raises(UserError, match=f"{names[0]} would be repeated 4,500 times .*{MOST_REPEATS} at most"):
        in_shares(examples, names, (1000, 1), 0)
    with pytest.raises(UserError, match=f"no examples of {names[0]} are left"):
        in_shares(examples.subset(np.arange(2, 11)), names, (1, 1), 0)


def command(line: str, *more: object) -> int:
    return main([*line.split(), *map(str, more)])


def test_a_training_on_a_folder_of_csv_shards_records_and_recognises_what_it_read(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards").mkdir()
    for number in range(2):
        with (tmp_path / "shards" / f"{number}.csv").open("w") as stream:
            writer = csv.writer(stream)
            writer.writerows([["question", "answer"], [f"{number}?", "yes"], ["why?", f"because {number}"]])
    extra = write(tmp_path / "extra.jsonl", {"question": "and?", "answer": "then"})
    named = ["--base", models["plain"], "--data", tmp_path / "shards", "--data", extra, "--out", tmp_path / "out",
             "columns.prompt=question", "columns.completion=answer"]  # fmt: skip
    assert command(f"{TRAIN} --dry-run --json", *named, "data_weights=[0.5,0.5]") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["examples_by_dataset"] == {str(tmp_path / "shards"): 4, str(extra): 4}
    assert command(TRAIN, *named) == 0
    inputs = read_json(tmp_path / "out" / "run.json")["inputs"]
    assert inputs["data 2"] == sha256_file(extra) and len(inputs["data 1"]) == 64
    capsys.readouterr()
    assert command(TRAIN, *named) == 0  # complete: nothing is done
    for change in ("columns.completion=question", "data_weights=[0.3,0.7]"):
        assert command(TRAIN, *named, change) == 2
        assert "another configuration" in capsys.readouterr().err
    with (tmp_path / "shards" / "1.csv").open("a") as stream:
        stream.write("more?,no\n")
    assert command(TRAIN, *named) == 2 and "other inputs (changed: data 1)" in capsys.readouterr().err


def test_a_run_of_before_goes_on(tmp_path: Path, models: dict[str, Path]) -> None:
    """Its config.yaml knows no columns and no weights."""
    data = write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"})
    named = ["--base", models["plain"], "--data", data, "--out", tmp_path / "out"]
    assert command(TRAIN, *named) == 0
    config = tmp_path / "out" / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("columns", "data_weights"))]
    assert len(kept) == len(lines) - 2
    config.write_text("".join(kept))
    record = read_json(tmp_path / "out" / "run.json")
    (tmp_path / "out" / "run.json").write_text(json.dumps({**record, "config_sha256": "of before"}))
    assert read_json(tmp_path / "out" / "run.json")["inputs"]["data"] == sha256_file(data)
    assert command(TRAIN, *named) == 0


def test_what_datasets_caches_beside_a_saved_dataset_does_not_make_it_another(tmp_path: Path) -> None:
    from datasets import Dataset, load_from_disk

    rows = Dataset.from_list([{"text": letter} for letter in "abcd"])
    rows.save_to_disk(tmp_path / "saved", num_shards=2)
    before = find_rows(str(tmp_path / "saved")).sha256
    assert before == sha256_of(tmp_path / "saved")
    load_from_disk(tmp_path / "saved").map(lambda row: {"length": len(row["text"])}).shuffle(seed=0)
    assert list((tmp_path / "saved").glob("cache-*.arrow"))
    assert find_rows(str(tmp_path / "saved")).sha256 == before
    rows.select([1, 0, 2, 3]).save_to_disk(tmp_path / "saved", num_shards=2)
    assert find_rows(str(tmp_path / "saved")).sha256 != before


def test_a_dataset_with_images_has_the_same_checksum_again(tmp_path: Path) -> None:
    from datasets import Dataset, Image

    rows = Dataset.from_list([{"text": "a", "image": {"bytes": b"no image", "path": None}}] * 2)
    first, second = (RowSource("x", dataset=rows.cast_column("image", Image())).sha256 for _ in range(2))
    assert first == second != RowSource("x", dataset=rows.select([0])).sha256


def test_a_source_is_named_to_others_without_its_folders() -> None:
    shown = {"/home/me/a b.csv": "a b.csv", "/home/me/*.csv": "*.csv", "me/**/*.csv": "*.csv", "~/x": "x",
             "/home/me/data:train": "data:train", "org/name@v1:main/train": "org/name@v1:main/train"}  # fmt: skip
    assert {name: private_name(name) for name in shown} == shown


def test_a_file_and_its_packed_copy_are_not_both_read(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    assert len(find_rows(str(tmp_path)).files) == 2
    (tmp_path / "a.jsonl.gz").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match="holds a.jsonl more than once"):
        find_rows(str(tmp_path))


REFUSED: dict[str, tuple[list[Any], str]] = {
    "no file": (["--data", "nowhere.csv"], "nowhere.csv: no such file or folder; check the path"),
    "no folder": (["--data", "here/nowhere"], "here/nowhere: no such file or folder; check the path"),
    "one of two": (["--data", "a.jsonl", "--data", "nowhere.csv"], "nowhere.csv: no such file"),
    "validation": (["--data", "a.jsonl", "--validation", "nowhere.csv"], "nowhere.csv: no such file"),
    "too many": (["--data", "a.jsonl", "data_weights=[1,2]"], "1 datasets are given; give each one weight"),
    "negative": (["--data", "a.jsonl", "data_weights=[-1]"], "-1.0 must be a positive number"),
    "nan": (["--data", "a.jsonl", "data_weights=[nan]"], "must be a positive number"),
    "unknown column": (["--data", "a.jsonl", "columns.question=prompt"], "columns.question: no such column"),
    "missing column": (["--data", "a.jsonl", "columns.prompt=query"], "columns.prompt=query: no such column; found"),
    "no template": (["--data", "chat.jsonl"], "has no chat template"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line(
    tmp_path: Path, models: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    write(Path("a.jsonl"), {"prompt": "a", "completion": "b"})
    write(Path("chat.jsonl"), {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    given, said = REFUSED[name]
    assert command(TRAIN, "--base", models["plain"], "--out", "out", *given) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1, printed
