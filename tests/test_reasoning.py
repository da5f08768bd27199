"""The reasoning sets of LLM-Adapters: prompts to the byte, answers as its code reads them, rows that are none."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from data_builders.benchmarks.reasoning import ARITHMETIC, COMMONSENSE, ReasoningSet, put_together, taken_apart
from data_builders.errors import UserError
from evals.reasoning import ArithmeticTask, CommonsenseTask, ReasoningTask, extracted, is_right
from tests.real_data import real_data

SETS = {each.name: each for each in (*ARITHMETIC, *COMMONSENSE)}
BOOLQ = "Please answer the following question with true or false, question: is {} hot?\n\nAnswer format: true/false"
SIQA = (
    "Please choose the correct answer to the question: Ada cooked {}. Why?\n\n"
    "Answer1: hunger Answer2: rain Answer3: sleep\n\nAnswer format: answer1/answer2/answer3"
)
ROWS = {
    "boolq": [(BOOLQ.format(i), ("true", "false", "true", "true")[i]) for i in range(4)],
    "social_i_qa": [(SIQA.format(i), f"answer{1 + i % 2}") for i in range(4)],
    "AddSub": [(f"Ada has {i} pens and gets 2.5 . How many ? ", str(i + 2.5)) for i in range(4)],
    "AQuA": [(f"What is {i}? Answer Choices: (A) 0 (B) 1 (C) 2 (D) 3 (E) 4", "ABCD"[i]) for i in range(4)],
}


def write(folder: Path, name: str, rows: list[tuple[str, str]], end: str = "test.json") -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    fields = [{"instruction": question, "input": "", "output": "wrong", "answer": answer} for question, answer in rows]
    text = "".join(json.dumps(row) + "\n" for row in fields) if ".jsonl" in end else json.dumps(fields, indent=4)
    path = folder / name / end
    path.write_bytes(gzip.compress(text.encode()) if end.endswith(".gz") else text.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for (name, rows), end in zip(
        ROWS.items(), ("test.json", "test.json.gz", "test.jsonl", "test.jsonl.gz"), strict=True
    ):
        write(tmp_path, name, rows, end)
    return tmp_path


def scored(task: ReasoningTask, folder: Path, answers: dict[str, str], limit: int | None = None) -> Any:
    records = task.load(folder, limit)
    return task.score(records, {record.id: [answers.get(record.id, "?")] for record in records})


def test_prompts_have_the_white_space_of_the_published_code_or_none(folder: Path) -> None:
    wanted = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request. \n"
        "\n"
        "                ### Instruction:\n"
        "                Ada has 0 pens and gets 2.5 . How many ? \n"
        "\n"
        "                ### Response:\n"
        "                "
    )
    task = ArithmeticTask(sets=("AddSub",))
    request = task.requests(task.load(folder))[0]
    assert (request.prompt, request.max_new_tokens, request.id) == (wanted, 256, "AddSub/0")
    task = ArithmeticTask(sets=("AddSub",), form="clean")
    clean = "\n".join(line.removeprefix(" " * 16) for line in wanted.split("\n")).replace("request. ", "request.")
    assert task.requests(task.load(folder))[0].prompt == clean
    assert CommonsenseTask().max_new_tokens == 32


def read_as_published(name: str, response: str) -> float | str:
    """The rules of evaluate.py and commonsense_evaluate.py in words of our own; nothing found is infinity or ''."""
    text = ("prompt ### Response:" + response).split("### Response:")[1].strip()
    if SETS[name].kind == "number":
        found = [float(number) for number in re.findall(r"-?\d+\.?\d*", "".join(text.split(",")))]
        return found[-1] if found else float("inf")
    labels = {"AQuA": "ABCDE", "boolq": ["true", "false"], "piqa": ["solution1", "solution2"]}.get(name)
    word = {"hellaswag": "ending", "winogrande": "option"}.get(name, "answer")
    count = {"hellaswag": 4, "winogrande": 2}.get(name, 5)
    labels = labels or [f"{word}{number}" for number in range(1, count + 1)]
    places = [(text.find(label), label) for label in labels if label in text]
    return min(places)[1] if places else ""


PIECES = [
    "", " ", "\n", "The answer is ", "the correct answer is ", "answer1", "answer2", "Answer3", "answer5", "answer10",
    "solution1", "solution2", "ending4", "ending5", "option1", "option2", "true", "false", "untrue", "True", "A", "B:",
    "(C)", "Each ", "DE", "a", "12", "-3", "3.5", "1,250", "2.", ".5", "1.2.3", "-", "--4", "$7", "50%", "1e3",
    "\u0663", "\u00bd", "0.001", "### Response:", "### Response: 9", "</s>", "9" * 400, "\u2212 6", "x=4", "7,", ", 8",
]  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_answers_are_read_as_the_published_code_reads_them(name: str) -> None:
    draw, which = random.Random(name), SETS[name]
    golds = {"number": ["4", "-3.0", "1250.0", "0.5"], "letter": ["A", "E"]}.get(which.kind, list(which.labels))
    found, pieces = 0, [*PIECES, *(which.labels * 4)]
    for _ in range(400):
        text = "".join(draw.choices(pieces, k=draw.randint(1, 7)))
        wanted, given, gold = read_as_published(name, text), extracted(which, text), draw.choice(golds)
        if which.kind == "number":
            assert wanted == (float("inf") if given is None else float(given))
            assert isinstance(wanted, float)
            assert is_right(which, given, gold) == (abs(float(gold) - wanted) <= 0.001)
        else:
            assert (given or "") == wanted and is_right(which, given, gold) == (wanted == gold)
        found += given is not None
    assert 100 < found < 400


def test_accuracies_are_averaged_over_sets_beside_chance_and_the_commonest_answer(folder: Path) -> None:
    answers = {"boolq/0": "true", "boolq/1": "It is false.", "social_i_qa/0": "the correct answer is answer1"}
    scores = scored(CommonsenseTask(sets=("social_i_qa", "boolq")), folder, answers)
    by_set = scores.breakdown["by_set"]
    assert [(row["name"], row["n"], row["accuracy"]) for row in by_set.values()] == [("BoolQ", 4, 50), ("SIQA", 4, 25)]
    assert scores.metrics == {"accuracy": 37.5} and scores.n == 8
    assert [(row["chance"], row["majority"]) for row in by_set.values()] == [(50, 75), (pytest.approx(100 / 3), 50)]
    assert by_set["boolq"]["unanswered"] == 50 and scores.protocol["format"] == "llm-adapters, exact"
    assert set(scores.protocol["data_sha256"]) == {"boolq/test.json", "social_i_qa/test.json.gz"}
    scores = scored(ArithmeticTask(sets=("AQuA", "AddSub")), folder, {"AddSub/1": "So 3.5", "AQuA/0": "(A)"}, limit=2)
    assert {name: (row["accuracy"], row["n"]) for name, row in scores.breakdown["by_set"].items()} == {
        "AddSub": (50, 2), "AQuA": (50, 2),
    }  # fmt: skip
    assert "majority" not in scores.breakdown["by_set"]["AddSub"]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("boolqa",), "sets: 'boolqa' is not one of boolq, piqa"),
        (("boolq", "boolq"), "names one twice"),
        (("piqa",), r"piqa holds no test.json; .*options.sets=\[boolq,social_i_qa\]"),
        ((), "piqa holds no test.json"),
    ],
)
def test_sets_that_are_not_there_are_one_line(folder: Path, sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CommonsenseTask(sets=sets).load(folder)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("boolq", (BOOLQ, "yes"), "its answer 'yes' is not one of true, false"),
        ("boolq", (SIQA, "answer1"), "it is no row of boolq"),
        ("social_i_qa", ("Which?", "answer1"), "its instruction does not end in 'Answer format: answer1/answer2"),
        ("AddSub", ("How many?", "four"), "its answer 'four' is no number"),
        ("AQuA", ("Which?", "F"), "its answer 'F' is not one of A, B"),
        ("AQuA", (" ", "A"), "its instruction is empty"),
    ],
)
def test_a_row_of_another_kind_is_one_line(tmp_path: Path, name: str, row: tuple[str, str], message: str) -> None:
    write(tmp_path, name, [row])
    task = CommonsenseTask(sets=(name,)) if SETS[name] in COMMONSENSE else ArithmeticTask(sets=(name,))
    with pytest.raises(UserError, match=rf"test\.json.*row 1.*{re.escape(message)}"):
        task.load(tmp_path)


def test_a_folder_without_sets_and_options_out_of_range_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds none of boolq/test.json"):
        CommonsenseTask().load(tmp_path)
    for end in ("test.json", "test.jsonl.gz"):
        write(tmp_path, "boolq", ROWS["boolq"], end)
    with pytest.raises(UserError, match=r"boolq holds test\.json and test\.jsonl\.gz; keep one"):
        CommonsenseTask(sets=("boolq",)).load(tmp_path)
    with pytest.raises(UserError, match="form: 'raw' is not one of exact, clean"):
        CommonsenseTask(form="raw")  # type: ignore[arg-type]


def test_the_published_files_have_the_rows_and_commonest_answers_that_are_known() -> None:
    folder = real_data("llm_adapters")
    majority = {
        "boolq": (3270, 62.2), "piqa": (1838, 50.5), "social_i_qa": (1954, 33.6), "winogrande": (1267, 50.4),
        "ARC-Easy": (2376, 26.6), "ARC-Challenge": (1172, 26.5), "openbookqa": (500, 27.6),
    }  # fmt: skip
    found = scored(CommonsenseTask(sets=tuple(majority)), folder, {}).breakdown["by_set"]
    assert {name: (row["n"], round(row["majority"], 1)) for name, row in found.items()} == majority
    rows = {"MultiArith": 600, "gsm8k": 1319, "AddSub": 395, "AQuA": 254, "SingleEq": 508, "SVAMP": 1000, "mawps": 238}
    records = ArithmeticTask().load(folder)
    answers = {record.id: f"The answer is {record.problem.answer}." for record in records}
    found = scored(ArithmeticTask(), folder, answers).breakdown["by_set"]
    assert {name: (row["n"], row["accuracy"]) for name, row in found.items()} == {k: (n, 100) for k, n in rows.items()}


def test_published_questions_are_put_together_as_they_were_taken_apart() -> None:
    folder = real_data("llm_adapters")
    for record in CommonsenseTask(sets=tuple(each.name for each in COMMONSENSE if each.name != "hellaswag")).load(
        folder
    ):
        problem = record.problem
        assert put_together(record.kind, taken_apart(record.kind, problem), problem.choices) == problem.instruction


def test_every_set_has_one_row_in_the_tables() -> None:
    assert len(SETS) == 15 and all(isinstance(each, ReasoningSet) for each in SETS.values())
    assert len({each.label for each in SETS.values()}) == 15
