"""The fifteen reasoning sets of LLM-Adapters (arXiv 2304.01933): their table, prompts, and the layout of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_builders.errors import UserError

ANSWER_FORMAT = "Answer format: "
LETTERS = ("A", "B", "C", "D", "E")

Form = Literal["exact", "clean"]
"""White space of a prompt: as the published code writes it, indentation and trailing spaces included, or as meant."""
RESPONSE = "### Response:"
_TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_INDENT = " " * 16
_CLEAN = (f"{_TASK}\n\n### Instruction:\n", f"\n\n{RESPONSE}\n")
# The texts before and after an instruction. Those that the published models were trained with differ in white space
# from those that they are asked with.
ASKED: dict[Form, tuple[str, str]] = {
    "exact": (f"{_TASK} \n\n{_INDENT}### Instruction:\n{_INDENT}", f"\n\n{_INDENT}{RESPONSE}\n{_INDENT}"),
    "clean": _CLEAN,
}
TRAINED: dict[Form, tuple[str, str]] = {
    "exact": (
        f"{_TASK}  \n\n{_INDENT}### Instruction:\n{_INDENT}",
        f"\n{_INDENT}\n{_INDENT}{RESPONSE}\n{_INDENT}",
    ),
    "clean": _CLEAN,
}


@dataclass(frozen=True)
class ReasoningSet:
    """One set.

    Attributes:
        name: of its folder.
        label: its column in the published tables.
        kind: what an answer is: a number, a letter of the choices, or a label that the instruction lists.
        labels: all labels that answers can have, in the order in which they are looked for.
        head: what instructions begin with, before the question.
    """

    name: str
    label: str
    kind: Literal["number", "letter", "label"]
    labels: tuple[str, ...] = ()
    head: str = ""


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word}{number}" for number in range(1, count + 1))


_ANSWERS = _numbered("answer", 5)
_WHICH = "Please choose the correct answer to the question: "
ARITHMETIC = (
    ReasoningSet("MultiArith", "MultiArith", "number"),
    ReasoningSet("gsm8k", "GSM8K", "number"),
    ReasoningSet("AddSub", "AddSub", "number"),
    ReasoningSet("AQuA", "AQuA", "letter", LETTERS),
    ReasoningSet("SingleEq", "SingleEq", "number"),
    ReasoningSet("SVAMP", "SVAMP", "number"),
    ReasoningSet("mawps", "MAWPS", "number"),
)
COMMONSENSE = (
    ReasoningSet(
        "boolq",
        "BoolQ",
        "label",
        ("true", "false"),
        "Please answer the following question with true or false, question: ",
    ),
    ReasoningSet(
        "piqa", "PIQA", "label", _numbered("solution", 2), "Please choose the correct solution to the question: "
    ),
    ReasoningSet("social_i_qa", "SIQA", "label", _ANSWERS, _WHICH),
    ReasoningSet(
        "hellaswag",
        "HellaSwag",
        "label",
        _numbered("ending", 4),
        "Please choose the correct ending to complete the given sentence: ",
    ),
    ReasoningSet(
        "winogrande",
        "WinoGrande",
        "label",
        _numbered("option", 2),
        "Please choose the correct answer to fill in the blank to complete the given sentence: ",
    ),
    ReasoningSet("ARC-Easy", "ARC-e", "label", _ANSWERS, _WHICH),
    ReasoningSet("ARC-Challenge", "ARC-c", "label", _ANSWERS, _WHICH),
    ReasoningSet("openbookqa", "OBQA", "label", _ANSWERS, _WHICH),
)


@dataclass(frozen=True)
class Question:
    """An instruction taken apart: the question, and the text of each choice (none where labels are the answers)."""

    text: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class ReasoningProblem:
    """One question.

    Attributes:
        id: `<set>/<row>`, from 0.
        choices: the answers that it allows; empty for numbers.
        passage: what the question is about, where a row has such a field (BoolQ's original has).
        question: the instruction taken apart, where the row came so.
    """

    id: str
    instruction: str
    answer: str
    choices: tuple[str, ...]
    passage: str = ""
    question: Question | None = None


def taken_apart(which: ReasoningSet, problem: ReasoningProblem) -> Question:
    """Return the question and the choices in an instruction of the published layout.

    Raises:
        UserError: the instruction is not laid out so.
    """
    if problem.question is not None:
        return problem.question
    rest, _, _ = problem.instruction.rpartition(ANSWER_FORMAT)
    if not rest.startswith(which.head):
        raise UserError(
            f"{problem.id}: its instruction does not begin with {which.head!r}; it is no row of {which.name}"
        )
    rest = rest.removeprefix(which.head)
    if which.labels[0].isalpha():
        return Question(_without_end(rest), ())
    texts = []
    for label in reversed(problem.choices):
        rest, marker, text = rest.rpartition(f"{label.capitalize()}: ")
        if not marker:
            raise UserError(f"{problem.id}: its instruction has no {label.capitalize()}; it is no row of {which.name}")
        texts.append(_without_end(text))
    return Question(_without_end(rest), tuple(reversed(texts)))


def _without_end(text: str) -> str:
    """Return a part without the blank line, or else the space, that divides it from the next."""
    return text[:-2] if text.endswith("\n\n") else text.removesuffix(" ")


def put_together(which: ReasoningSet, question: Question, labels: Sequence[str]) -> str:
    """Return the instruction in the published layout: the inverse of `taken_apart`."""
    listed = f"{ANSWER_FORMAT}{'/'.join(labels)}"
    if not question.choices:
        return f"{which.head}{question.text}\n\n{listed}"
    named = [f"{label.capitalize()}: {text}" for label, text in zip(labels, question.choices, strict=True)]
    between, end = ("\n\n", "\n\n") if which.name == "piqa" else (" ", " " if which.name == "winogrande" else "\n\n")
    return f"{which.head}{question.text}\n\n{between.join(named)}{end}{listed}"
