"""Read the fifteen reasoning sets of LLM-Adapters (arXiv 2304.01933), in the layout of its repository.

`<set>/test.json`, a JSON list (or JSON Lines, `.gz` or not) of rows with `instruction` and `answer`. The field `output`
of the arithmetic sets is a generated rationale that is often wrong; it is not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_builders.errors import UserError
from data_builders.files import sha256_file
from data_builders.row_files import Fields, located_rows, require_fields

_FIELDS: Fields = {"instruction": str, "answer": str}
_ENDS = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
_TEST = "test"
_FORMAT = "Answer format: "
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
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
class ReasoningProblem:
    """One question.

    Attributes:
        id: `<set>/<row>`, from 0.
        choices: the answers that it allows; empty for numbers.
        passage: what the question is about, where a row has such a field (BoolQ's original has).
    """

    id: str
    instruction: str
    answer: str
    choices: tuple[str, ...]
    passage: str = ""


@dataclass(frozen=True)
class Question:
    """An instruction taken apart: the question, and the text of each choice (none where labels are the answers)."""

    text: str
    choices: tuple[str, ...]


def taken_apart(which: ReasoningSet, problem: ReasoningProblem) -> Question:
    """Return the question and the choices in an instruction of the published layout.

    Raises:
        UserError: the instruction is not laid out so.
    """
    rest, _, _ = problem.instruction.rpartition(_FORMAT)
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


def reasoning_file(folder: Path, name: str, stem: str = _TEST) -> Path | None:
    """Return a file of a set in a folder of sets (JSON or JSON Lines, `.gz` or not), or None.

    Raises:
        UserError: there are several.
    """
    found = [path for end in _ENDS if (path := folder / name / f"{stem}{end}").is_file()]
    if len(found) > 1:
        raise UserError(f"{folder / name} holds {' and '.join(path.name for path in found)}; keep one of them")
    return found[0] if found else None


def choose_sets(folder: Path, known: Sequence[ReasoningSet], names: Sequence[str]) -> list[ReasoningSet]:
    """Return the named sets in the order of `known`; without names, all of them.

    Raises:
        UserError: a name is unknown or twice there, or a set is not in the folder: a mean over fewer sets is another
            figure, so nothing is left out unless `names` does.
    """
    all_names = [each.name for each in known]
    if unknown := [name for name in names if name not in all_names]:
        raise UserError(f"sets: {unknown[0]!r} is not one of {', '.join(all_names)}")
    if len(set(names)) < len(names):
        raise UserError(f"sets: {', '.join(names)} names one twice")
    chosen = [each for each in known if not names or each.name in names]
    there = [each.name for each in known if reasoning_file(folder, each.name)]
    if not there:
        raise UserError(
            f"{folder} holds none of {', '.join(f'{name}/{_TEST}.json' for name in all_names)}; "
            "name the folder `dataset` of LLM-Adapters, or one laid out like it"
        )
    if missing := [each.name for each in chosen if each.name not in there]:
        raise UserError(
            f"{folder / missing[0]} holds no {_TEST}.json; get it, or name the sets to measure: "
            f"options.sets=[{','.join(there)}]"
        )
    return chosen


def read_reasoning(folder: Path, which: ReasoningSet) -> tuple[list[ReasoningProblem], dict[str, str]]:
    """Return the problems of a set in a folder of sets, and the sha256 of its file.

    Raises:
        UserError: the file is missing, empty, or a row is none of this set.
    """
    path = reasoning_file(folder, which.name)
    if path is None:
        raise UserError(f"{folder / which.name} holds no {_TEST}.json (or .jsonl, .gz or not)")
    problems = []
    for row, (where, found) in enumerate(located_rows(path)):
        fields = require_fields(found, _FIELDS, where)
        instruction, answer = fields["instruction"], fields["answer"].strip()
        if not instruction.strip():
            raise UserError(f"{where}: its instruction is empty; get the file again")
        choices = _choices(which, instruction, where)
        if which.kind == "number" and not _NUMBER.fullmatch(answer):
            raise UserError(f"{where}: its answer {answer!r} is no number; write it as in 12 or -2.5")
        if choices and answer not in choices:
            raise UserError(f"{where}: its answer {answer!r} is not one of {', '.join(choices)}")
        passage = found.get("passage") or ""
        if not isinstance(passage, str):
            raise UserError(f"{where}: its passage is no text; write it as text, or leave it out")
        problems.append(ReasoningProblem(f"{which.name}/{row}", instruction, answer, choices, passage))
    if not problems:
        raise UserError(f"{path}: holds no rows; get the file again")
    return problems, {f"{which.name}/{path.name}": sha256_file(path)}


def _choices(which: ReasoningSet, instruction: str, where: str) -> tuple[str, ...]:
    """Return the answers that an instruction allows: after `Answer format: `, the letters, or none for numbers."""
    if which.kind != "label":
        return which.labels
    _, marker, listed = instruction.rpartition(_FORMAT)
    choices = tuple(listed.strip().split("/"))
    if not marker or not set(choices) <= set(which.labels):
        raise UserError(
            f"{where}: its instruction does not end in '{_FORMAT}{'/'.join(which.labels)}', or fewer of these; "
            f"it is no row of {which.name}"
        )
    return choices
