"""The text format "sentence-pairs" of translations, shared by training data and evaluation prompts.

A pair is `Ligurian sentence: ...` and, on the next line, `English sentence: ...`; worked pairs come before it, each
followed by an empty line.
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
    """Return the prompt: the sentence with its language's label, and the label of the target language."""
    return f"{language_name(source)} sentence: {sentence}\n{language_name(target)} sentence:"


def answer(translation: str) -> str:
    """Return the completion that follows `question`."""
    return f" {translation}"


def worked_pair(source: str, target: str, sentence: str, translation: str) -> str:
    """Return a pair in the form that precedes a question."""
    return f"{question(source, target, sentence)}{answer(translation)}\n\n"


def sentences_in(text: str) -> Iterable[str]:
    """Return the sentences of all pairs in a text (question and answer, with worked pairs or without)."""
    return _SENTENCE.findall(text)
