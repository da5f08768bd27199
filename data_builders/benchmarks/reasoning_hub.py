"""The commonsense sets as their authors publish them, by the ids, splits and columns that lm-evaluation-harness has.

Its questions are those of LLM-Adapters' files; BoolQ's passages and the halves of HellaSwag's contexts are only here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.benchmarks.reasoning import Question, ReasoningProblem, ReasoningSet, put_together
from data_builders.errors import UserError
from data_builders.hub import read_hub
from data_builders.row_files import Fields, Row


@dataclass(frozen=True)
class HubSet:
    """Where a set is published.

    Attributes:
        id: of the dataset on the hub.
        config: name of its configuration; None = the only one.
        taken: row -> the question, and the place of the right answer.
    """

    id: str
    config: str | None
    split: str
    fields: Fields
    taken: Callable[[Row], tuple[Question, int]]


def _boolq(row: Row) -> tuple[Question, int]:
    return Question(f"{row['question']}?", ()), 1 - row["label"]  # the labels are true, then false


def _piqa(row: Row) -> tuple[Question, int]:
    return Question(row["goal"], (row["sol1"], row["sol2"])), row["label"]


def _siqa(row: Row) -> tuple[Question, int]:
    choices = (row["answerA"], row["answerB"], row["answerC"])
    return Question(f"{row['context']} {row['question']}", choices), int(row["label"]) - 1


def _hellaswag(row: Row) -> tuple[Question, int]:
    text = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Question(text, tuple(row["endings"])), int(row["label"])


def _winogrande(row: Row) -> tuple[Question, int]:
    return Question(row["sentence"], (row["option1"], row["option2"])), int(row["answer"]) - 1


def _letters(asked: str) -> Callable[[Row], tuple[Question, int]]:
    def taken(row: Row) -> tuple[Question, int]:
        labels = list(row["choices"]["label"])
        return Question(row[asked], tuple(row["choices"]["text"])), labels.index(row["answerKey"].strip())

    return taken


_ARC: Fields = {"question": str, "choices": dict, "answerKey": str}
HUB_SETS: dict[str, HubSet] = {
    "boolq": HubSet(
        "aps/super_glue", "boolq", "validation", {"question": str, "passage": str, "label": int}, _boolq
    ),
    "piqa": HubSet(
        "baber/piqa", None, "validation", {"goal": str, "sol1": str, "sol2": str, "label": int}, _piqa
    ),
    "social_i_qa": HubSet(
        "lighteval/siqa", None, "validation",
        {"context": str, "question": str, "answerA": str, "answerB": str, "answerC": str, "label": str}, _siqa,
    ),
    "hellaswag": HubSet(
        "Rowan/hellaswag", None, "validation",
        {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list, "label": str}, _hellaswag,
    ),
    "winogrande": HubSet(
        "allenai/winogrande", "winogrande_xl", "validation",
        {"sentence": str, "option1": str, "option2": str, "answer": str}, _winogrande,
    ),
    "ARC-Easy": HubSet("allenai/ai2_arc", "ARC-Easy", "test", _ARC, _letters("question")),
    "ARC-Challenge": HubSet("allenai/ai2_arc", "ARC-Challenge", "test", _ARC, _letters("question")),
    "openbookqa": HubSet(
        "allenai/openbookqa", "main", "test", {"question_stem": str, "choices": dict, "answerKey": str},
        _letters("question_stem"),
    ),
}  # fmt: skip


def read_hub_set(source: Path, which: ReasoningSet) -> tuple[list[ReasoningProblem], dict[str, str]]:
    """Return the problems of a set from the hub or a downloaded copy, and the sha256 of their rows.

    Raises:
        UserError: it cannot be loaded, or a row is none of this set.
    """
    hub = HUB_SETS[which.name]
    rows, file = read_hub(source, hub.config, (hub.split,), hub.fields)
    problems = []
    for place, row in enumerate(rows):
        where = f"{source}, {hub.split} row {place}"
        try:
            question, right = hub.taken(row)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: it is no row of {which.name} ({error}); is it the right dataset?") from error
        labels = which.labels[: len(question.choices)] if question.choices else which.labels
        count = len(question.choices)
        if len(labels) < max(count, 1) or not 0 <= right < len(labels):
            raise UserError(f"{where}: it has {count} choices and answer {right + 1}; get the set again")
        passage: Any = row.get("passage") or ""
        instruction = put_together(which, question, labels)
        problem = ReasoningProblem(f"{which.name}/{place}", instruction, labels[right], labels, passage, question)
        problems.append(problem)
    return problems, {file.file: file.sha256}
