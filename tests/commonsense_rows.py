"""Rows of the commonsense sets: made up, published, and with the columns of each set's own data."""

import bz2
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.benchmarks.reasoning import COMMONSENSE, taken_apart
from data_builders.benchmarks.reasoning_rows import read_reasoning
from tests.real_data import real_data

SETS = {each.name: each for each in COMMONSENSE}
WORDS = ("water", "the Answer", "a 2nd thing", "rain: snow", "an old, long, winding street", "x")
# Question and choices of each set, with a word in the places of braces; BoolQ's passage stands in its choices' place.
MADE = {
    "boolq": ("is it {}", ("On {}.\nIt is so.",)),
    "piqa": ("How to {}?", ("Do it: {} ", "Wait, or not.")),
    "social_i_qa": ("Ada did {}. Why?", ("for fun", "it rained, {}", "no reason")),
    "hellaswag": (
        "{} [header] Well: Put  it down [title] and",
        ("goes.", "[step] sleeps  well.", "is {}.", "asks."),
    ),
    "winogrande": ("{} met Bob, so _ said hello to {}.", ("Ada", "the other")),
    "ARC-Easy": ("What is {}?", ("{}", "a stone", "two")),
    "ARC-Challenge": ("Which?\n1) {}\n2) ice", ("1, {}", "a  stone")),
    "openbookqa": ("One finds {} ", ("in {}", "Answers.", "up", "down")),
}


@dataclass(frozen=True)
class Made:
    """A question with its choices (BoolQ: its passage) and the place of the right answer among the labels."""

    name: str
    question: str
    choices: tuple[str, ...]
    right: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the answers that may be given."""
        return SETS[self.name].labels[: 2 if self.name == "boolq" else len(self.choices)]

    def published(self) -> dict[str, str]:
        """Return the row in the layout of LLM-Adapters."""
        row = {"answer": self.labels[self.right]}
        listed = f"Answer format: {'/'.join(self.labels)}"
        if self.name == "boolq":
            text = f"{self.question}?\n\n"
            row["passage"] = self.choices[0]
        else:
            named = [f"{label.capitalize()}: {choice}" for label, choice in zip(self.labels, self.choices, strict=True)]
            text = f"{self.question}\n\n" + ("\n\n" if self.name == "piqa" else " ").join(named)
            text += " " if self.name == "winogrande" else "\n\n"
        return {"instruction": SETS[self.name].head + text + listed, **row}

    def original(self) -> dict[str, Any]:
        """Return the row with the columns of the set's own data, which the harness reads."""
        text, choices, right = self.question, list(self.choices), self.right
        if self.name == "boolq":
            return {"passage": choices[0], "question": text, "label": 1 - right}
        if self.name == "piqa":
            return {"goal": text, "sol1": choices[0], "sol2": choices[1], "label": right}
        if self.name == "social_i_qa":
            context, _, rest = text.rpartition(" ")
            answers = dict(zip(("answerA", "answerB", "answerC"), choices, strict=True))
            return {"context": context, "question": rest, **answers, "label": str(right + 1)}
        if self.name == "hellaswag":
            label, _, context = text.partition(": ")
            return {"activity_label": label, "ctx_a": context, "ctx_b": "", "endings": choices, "label": str(right)}
        if self.name == "winogrande":
            return {"sentence": text, "option1": choices[0], "option2": choices[1], "answer": str(right + 1)}
        letters = list("ABCDE"[: len(choices)])
        asked = "question_stem" if self.name == "openbookqa" else "question"
        return {asked: text, "choices": {"text": choices, "label": letters}, "answerKey": letters[right]}


def made(name: str) -> list[Made]:
    """Return made-up questions of a set."""
    question, choices = MADE[name]
    count = 2 if name == "boolq" else len(choices)
    return [
        Made(name, question.format(word, word), tuple(choice.format(word) for choice in choices), place % count)
        for place, word in enumerate(WORDS)
    ]


def taken(folder: Path, name: str) -> list[Made]:
    """Return the questions of a set in a folder, as the program takes them apart."""
    found = []
    for problem in read_reasoning(folder, SETS[name])[0]:
        question, right = taken_apart(SETS[name], problem), problem.choices.index(problem.answer)
        if name == "boolq":
            found.append(Made(name, question.text.removesuffix("?"), (problem.passage,), right))
        else:
            found.append(Made(name, question.text, question.choices, right))
    return found


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
