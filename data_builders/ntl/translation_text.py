"""The text format "sentence-pairs" of translations, the same in training data and in prompts of the evaluation.

A pair reads `Ligurian sentence: ...` and, on the next line, `English sentence: ...`; worked pairs stand before
it with an empty line after each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from data_builders.benchmarks.languages import language_name

FORMAT: Final = "sentence-pairs"
STOP: Final = ("\n",)
_SENTENCE = re.compile(r"^[^\n:]* sentence: ?(.*)$", re.MULTILINE)


def question(source: str, target: str, sentence: str) -> str:
    """Return the sentence under its language's name, and the label that the translation follows."""
    return f"{language_name(source)} sentence: {sentence}\n{language_name(target)} sentence:"


def answer(translation: str) -> str:
    """Return what follows the question."""
    return f" {translation}"


def worked_pair(source: str, target: str, sentence: str, translation: str) -> str:
    """Return a pair as it stands before a question."""
    return f"{question(source, target, sentence)}{answer(translation)}\n\n"


def sentences_in(text: str) -> Iterable[str]:
    """Return the sentences of all pairs in a text (question and answer, with worked pairs or without)."""
    return _SENTENCE.findall(text)
