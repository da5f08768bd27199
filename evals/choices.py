"""Multiple choice by likelihood: contexts, continuations and accuracies as lm-evaluation-harness 0.4.13 has them.

The harness's tasks are boolq, piqa, social_iqa, hellaswag, winogrande, arc_easy, arc_challenge and openbookqa, without
worked examples. Rows of LLM-Adapters lack two things that the harness's data have: BoolQ's passage (it stands before
the question where a row has the field `passage`), and the border between the halves of HellaSwag's contexts, of which
the second keeps its own capitals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_builders.benchmarks.reasoning import ReasoningProblem, ReasoningSet, taken_apart
from data_builders.errors import UserError

# The text before the answer, by set; WinoGrande's choices stand in the context instead.
_WORDINGS = {
    "boolq": "Question: {}\nAnswer:",
    "piqa": "Question: {}\nAnswer:",
    "social_i_qa": "Q: {}\nA:",
    "hellaswag": "{}",
    "ARC-Easy": "Question: {}\nAnswer:",
    "ARC-Challenge": "Question: {}\nAnswer:",
    "openbookqa": "{}",
}
NORMALISED = ("piqa", "hellaswag", "ARC-Easy", "ARC-Challenge", "openbookqa")
"""Sets of which the harness also reports `acc_norm`."""
HARNESS = "lm-evaluation-harness 0.4.13, zero-shot"
HARNESS_RULES = {
    "acc": "the choice with the highest log-likelihood",
    "acc_norm": f"the highest per character of the choice ({', '.join(NORMALISED)} only)",
}
_BLANK = "_"


@dataclass(frozen=True)
class Choice:
    """A choice: the text that a model reads, the text whose likelihood is measured, and the choice's characters."""

    context: str
    continuation: str
    characters: int


@dataclass(frozen=True)
class Decision:
    """What a model chose: by likelihood, and by likelihood per character of the choice."""

    plain: int
    per_character: int


def choices_of(which: ReasoningSet, problem: ReasoningProblem) -> tuple[list[Choice], int]:
    """Return the choices of a question and the index of the right one.

    Raises:
        UserError: the instruction is not laid out as the set's are.
    """
    question = taken_apart(which, problem)
    if which.name == "boolq":
        before = f"{problem.passage}\n" if problem.passage else ""
        choices = [_choice(before + _WORDINGS["boolq"].format(question.text), answer) for answer in ("no", "yes")]
        return choices, ("false", "true").index(problem.answer)
    right = problem.choices.index(problem.answer)
    if which.name == "winogrande":
        before, blank, after = question.text.partition(_BLANK)
        if not blank:
            raise UserError(
                f"{problem.id}: its sentence has no {_BLANK}, where the choices go; it is no row of winogrande"
            )
        return [_choice(before + choice, after.strip()) for choice in question.choices], right
    tidy = _without_brackets if which.name == "hellaswag" else str
    context = _WORDINGS[which.name].format(tidy(question.text))
    return [_choice(context, tidy(choice)) for choice in question.choices], right


def decided(choices: Sequence[Choice], bits: Sequence[float]) -> Decision:
    """Return the likeliest choices, given the bits of each; the first of equals."""
    places = range(len(choices))
    return Decision(
        plain=min(places, key=lambda place: bits[place]),
        per_character=min(places, key=lambda place: bits[place] / max(choices[place].characters, 1)),
    )


def _choice(context: str, answer: str) -> Choice:
    """Return a choice with the space before it; white space at the context's end belongs to the continuation."""
    bare = context.rstrip()
    return Choice(bare, f"{context[len(bare) :]} {answer}", len(answer))


def _without_brackets(text: str) -> str:
    """Return a text of HellaSwag without WikiHow's markup, as the harness's `preprocess` does."""
    tidy = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return tidy.replace("  ", " ")
