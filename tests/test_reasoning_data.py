"""Training data for reasoning: no question of a test set, prompts to the byte, every source's own answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_builders.errors import UserError
from data_builders.reasoning.build import build, check
from data_builders.reasoning.config import ReasoningDataConfig
from data_builders.row_files import read_jsonl
from evals.reasoning import ArithmeticTask, CommonsenseTask
from tests.real_data import real_data

BOOLQ = "Please answer the following question with true or false, question: is {} hot?\n\nAnswer format: true/false"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for split, count in (("train", 20), ("test", 4)):
        rows = [
            {
                "instruction": BOOLQ.format(f"{split} {row}"),
                "output": "the correct answer is true",
                "answer": "true",
            }
            for row in range(count)
        ]
        write(data / "boolq" / f"{split}.json", rows)
    write(
        data / "AddSub" / "test.json",
        [{"instruction": f"Ada has {row} pens . How many ? ", "answer": "4"} for row in range(3)],
    )
    sums = [
        {"id": row, "original_text": f"ada HAS {row} pens. How many?", "equation": f"X=(({row}.0-2.5)/4.0)", "ans": 2.0}
        for row in range(10)
    ]
    write(data / "mawps" / "trainset.json", sums)
    lines = (
        {"question": f"How old is {row}?", "answer": f"It is 1+{row}=<<1+{row}=9>>9.\n#### 1,{row}00"}
        for row in range(5)
    )
    (data / "own").mkdir()
    (data / "own" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return data


def config(folder: Path, **settings: Any) -> ReasoningDataConfig:
    return ReasoningDataConfig(data_folder=str(folder), **{"validation_rows": 2, **settings})


def rows_of(out: Path, name: str = "train.parquet") -> list[dict[str, Any]]:
    return pq.read_table(out / name).to_pylist()


def test_rows_that_ask_a_test_question_are_removed_counted_and_listed(folder: Path, tmp_path: Path) -> None:
    arithmetic = config(folder, mix="arithmetic", gsm8k=str(folder / "own"))
    manifest = build(arithmetic, tmp_path / "out")
    assert manifest["overlap"]["tests"] == {
        "AddSub": {"questions": 3, "in_training_files": 3},
        "boolq": {"questions": 4, "in_training_files": 0},
    }
    assert manifest["overlap"]["rows"] == {"mawps": 3} and manifest["overlap"]["left"] == 0
    listed = read_jsonl(tmp_path / "out" / "overlaps.jsonl")
    assert [(row["source"], row["tests"]) for row in listed] == [("mawps", ["AddSub"])] * 3
    rows = rows_of(tmp_path / "out") + rows_of(tmp_path / "out", "validation.parquet")
    assert len(rows) == 12 and not any(row["instruction"] in each["prompt"] for row in listed for each in rows)
    kept = build(replace(arithmetic, overlaps="keep"), tmp_path / "kept")
    assert kept["overlap"]["left"] == 3 and sum(kept["counts"]["train.parquet"].values()) == 13


def test_answers_are_those_of_their_source(folder: Path, tmp_path: Path) -> None:
    build(config(folder, mix="arithmetic", gsm8k=str(folder / "own"), validation_rows=0), tmp_path / "out")
    found = {row["meta"]["source"]: row["completion"] for row in rows_of(tmp_path / "out")}
    assert found == {
        "mawps": "((9-2.5)/4) = 2. The answer is 2.",
        "gsm8k": "It is 1+4=9.\nThe answer is 1,400.",
    }


def test_prompts_have_the_white_space_that_the_published_models_were_trained_with(folder: Path, tmp_path: Path) -> None:
    build(config(folder, loss_on="all"), tmp_path / "all")
    build(config(folder), tmp_path / "completion")
    build(config(folder, form="clean"), tmp_path / "clean")
    instruction = BOOLQ.format("train 0")
    text = rows_of(tmp_path / "all")[0]["text"]
    assert text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n"
        "\n"
        "                ### Instruction:\n"
        f"                {instruction}\n"
        "                \n"
        "                ### Response:\n"
        "                the correct answer is true"
    )
    row, clean = rows_of(tmp_path / "completion")[0], rows_of(tmp_path / "clean")[0]
    assert row["prompt"] + row["completion"] == text and row["completion"] == "the correct answer is true"
    task = CommonsenseTask(sets=("boolq",), form="clean")
    asked = task.requests(task.load(folder))[0].prompt
    assert clean["prompt"] == asked.replace("test 0", "train 0")


def test_equal_seeds_give_equal_files_and_another_seed_holds_out_others(folder: Path, tmp_path: Path) -> None:
    first, again, other = (
        build(config(folder, seed=seed), tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first["files"] == again["files"] != other["files"]
    for name in "ac":
        train, held_out = (rows_of(tmp_path / name, part) for part in ("train.parquet", "validation.parquet"))
        prompts = {row["prompt"] for row in train}
        assert len(held_out) == 2 and len(train) == 18 and not prompts & {row["prompt"] for row in held_out}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix": "all"}, "mix: 'all' is not one of commonsense, arithmetic"),
        ({"gsm8k": "own"}, "gsm8k: it is part of mix=arithmetic only"),
        ({"validation_rows": 20}, "validation_rows: 20 of 20 rows leave none"),
        ({"files": ("nowhere.json",)}, "nowhere.json"),
        ({"mix": "arithmetic", "data_folder": "{own}"}, "holds no training file of arithmetic"),
        ({"data_folder": None, "files": ("{boolq}",)}, "data_folder is not set"),
        ({"data_folder": "{own}", "files": ("{boolq}",)}, "holds no test set"),
        ({"files": ("{mawps}",)}, "'instruction'"),
    ],
)
def test_what_cannot_be_built_is_one_line(folder: Path, settings: dict[str, Any], message: str) -> None:
    places = {"own": folder / "own", "boolq": folder / "boolq/train.json", "mawps": folder / "mawps/trainset.json"}

    def filled(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(filled, value))
        return value.format(**places) if isinstance(value, str) else value

    given = {"data_folder": str(folder), "validation_rows": 2} | {k: filled(v) for k, v in settings.items()}
    with pytest.raises(UserError, match=message):
        check(ReasoningDataConfig(**given))


def test_the_published_training_files_hold_the_test_questions_that_are_known(tmp_path: Path) -> None:
    data = real_data("llm_adapters")
    arithmetic = build(config(data, mix="arithmetic", gsm8k=str(real_data("gsm8k"))), tmp_path / "a")["overlap"][
        "tests"
    ]
    shares = {name: (row["in_training_files"], row["questions"]) for name, row in arithmetic.items()}
    known = {"AddSub": (327, 395), "MultiArith": (452, 600), "SingleEq": (416, 508), "mawps": (28, 238)}
    assert {name: pair for name, pair in shares.items() if pair[0]} == known
    commonsense = build(config(data), tmp_path / "c")["overlap"]["tests"]
    found = {name: row["in_training_files"] for name, row in commonsense.items() if row["in_training_files"]}
    assert found == {"boolq": 1, "ARC-Easy": 2}
    # What is built is scored as right by the task's own rules.
    for task, name in ((ArithmeticTask(sets=("mawps",)), "a"), (CommonsenseTask(sets=("boolq",)), "c")):
        records = task.load(data, 50)
        answer = rows_of(tmp_path / name)[0]["completion"]
        scores = task.score(records, {record.id: [answer] for record in records})
        assert scores.breakdown["by_set"][records[0].kind.name]["unanswered"] == 0
