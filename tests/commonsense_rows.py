"""Rows of the commonsense sets: made up, published, and with the columns of each set's own data."""

import bz2
import json
from pathlib import Path
from typing import Any

from data_builders.benchmarks.reasoning import COMMONSENSE, ReasoningProblem, read_reasoning, taken_apart
from tests.real_data import real_data

SETS = {each.name: each for each in COMMONSENSE}
ROWS = {
    "boolq": ("Please answer the following question with true or false, question: is it {}?\n\n", "true/false"),
    "piqa": (
        "Please choose the correct solution to the question: How to {}?\n\nSolution1: Do it: {} \n\n"
        "Solution2: Wait, or not.\n\n",
        "solution1/solution2",
    ),
    "social_i_qa": (
        "Please choose the correct answer to the question: Ada did {}. Why?\n\n"
        "Answer1: for fun Answer2: it rained, {} Answer3: no reason\n\n",
        "answer1/answer2/answer3",
    ),
    "hellaswag": (
        "Please choose the correct ending to complete the given sentence: "
        "{} [header] Well: Put  it down [title] and\n\n"
        "Ending1: goes. Ending2: [step] sleeps  well. Ending3: is {}. Ending4: asks.\n\n",
        "ending1/ending2/ending3/ending4",
    ),
    "winogrande": (
        "Please choose the correct answer to fill in the blank to complete the given sentence: "
        "{} met Bob, so _ said hello to {}.\n\nOption1: Ada Option2: the other ",
        "option1/option2",
    ),
    "ARC-Easy": (
        "Please choose the correct answer to the question: What is {}?\n\n"
        "Answer1: {} Answer2: a stone Answer3: two\n\n",
        "answer1/answer2/answer3",
    ),
    "ARC-Challenge": (
        "Please choose the correct answer to the question: Which?\n1) {}\n2) ice\n\n"
        "Answer1: 1, {} Answer2: a  stone\n\n",
        "answer1/answer2",
    ),
    "openbookqa": (
        "Please choose the correct answer to the question: One finds {} \n\n"
        "Answer1: in {} Answer2: Answers. Answer3: up Answer4: down\n\n",
        "answer1/answer2/answer3/answer4",
    ),
}
WORDS = ("water", "the Answer", "a 2nd thing", "rain: snow", "an old, long, winding street", "x")


def made_rows(name: str) -> list[dict[str, str]]:
    text, listed = ROWS[name]
    labels = listed.split("/")
    rows = [
        {
            "instruction": text.format(word, word) + f"Answer format: {listed}",
            "answer": labels[place % len(labels)],
            **({"passage": f"On {word}.\nIt is so."} if name == "boolq" else {}),
        }
        for place, word in enumerate(WORDS)
    ]
    return rows


def hub_row(problem: ReasoningProblem) -> dict[str, Any]:
    """Return a row with the columns of the set's own data, which the harness reads."""
    name = problem.id.partition("/")[0]
    question = taken_apart(SETS[name], problem)
    text, choices = question.text, list(question.choices)
    place = problem.choices.index(problem.answer)
    if name == "boolq":
        assert text.endswith("?")
        return {"passage": problem.passage, "question": text[:-1], "label": 1 - place}
    if name == "piqa":
        return {"goal": text, "sol1": choices[0], "sol2": choices[1], "label": place}
    if name == "social_i_qa":
        context, _, rest = text.rpartition(" ")
        answers = dict(zip(("answerA", "answerB", "answerC"), choices, strict=True))
        return {"context": context, "question": rest, **answers, "label": str(place + 1)}
    if name == "hellaswag":
        label, _, context = text.partition(": ")
        return {"activity_label": label, "ctx_a": context, "ctx_b": "", "endings": choices, "label": str(place)}
    if name == "winogrande":
        return {"sentence": text, "option1": choices[0], "option2": choices[1], "answer": str(place + 1)}
    letters = list("ABCDE"[: len(choices)])
    asked = "question_stem" if name == "openbookqa" else "question"
    return {asked: text, "choices": {"text": choices, "label": letters}, "answerKey": letters[place]}


def whole_data(folder: Path) -> Path:
    """Return a folder with the published files, HellaSwag's made from its plain text, and BoolQ's with a passage."""
    published, data = real_data("llm_adapters"), folder / "data"
    data.mkdir()
    for name in SETS:
        if name not in ("hellaswag", "boolq"):
            (data / name).symlink_to(published / name)
    lines = bz2.open(published / "hellaswag" / "hellaswag_val_full.txt.bz2", "rt").read().split("\n")
    rows = [
        {
            "instruction": f"{SETS['hellaswag'].head}{lines[at]}\n\n"
            + " ".join(f"Ending{number}: {lines[at + 1 + number]}" for number in range(1, 5))
            + "\n\nAnswer format: ending1/ending2/ending3/ending4",
            "answer": f"ending{int(lines[at + 1]) + 1}",
        }
        for at in range(0, 200 * 6, 6)
    ]
    questions, _ = read_reasoning(published, SETS["boolq"])
    passages = [
        {"instruction": each.instruction, "answer": each.answer, "passage": f"This is about question {place}."}
        for place, each in enumerate(questions[:200])
    ]
    for name, written in (("hellaswag", rows), ("boolq", passages)):
        (data / name).mkdir()
        (data / name / "test.json").write_text(json.dumps(written))
    return data
