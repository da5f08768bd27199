"""Pairs of Python functions and the first paragraph of their documentation, chosen as CodeSearchNet does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_builders.benchmarks.codexglue import leaks, question
from data_builders.code.functions import PythonFunction

_TOKEN = re.compile(r"\w+|[^\w\s]")
_FIELD = (
    r":(param|type|arg|key|kw|var|ivar|return|rtype|yield|raise)|@(param|return)|Args:|Parameters\b|Returns?:|Raises:"
)
_SUMMARY_END = re.compile(rf"\n\s*\n|\n\s*(?={_FIELD}|>>>|\.\. )")
_MARKUP = re.compile(r"<img|https?:", re.IGNORECASE)
_MIN_LINES = 3
_MIN_TOKENS = 3


@dataclass(frozen=True)
class Pair:
    """A function to summarise, as `calmctl eval codexglue` asks it, and the summary."""

    prompt: str
    summary_tokens: tuple[str, ...]

    @property
    def completion(self) -> str:
        """Return the tokens of the summary joined by spaces, as in the benchmark, after a space."""
        return f" {' '.join(self.summary_tokens)}"


def make_pair(function: PythonFunction, max_bytes: int, max_tokens: int) -> Pair | str:
    """Return the pair of a function that has a docstring, or why there is none.

    Args:
        max_bytes: of the code without its docstring.
        max_tokens: of the summary.
    """
    tokens = summary_tokens(function.docstring)
    summary = " ".join(tokens)
    if "test" in function.name.lower() or (function.name.startswith("__") and function.name.endswith("__")):
        return "test_or_special_method"
    if not function.code.strip():
        return "no_code_beside_docstring"
    if len([line for line in function.code.split("\n") if line.strip()]) < _MIN_LINES:
        return "short_function"
    if len(function.code.encode()) > max_bytes:
        return "long_function"
    if len(tokens) < _MIN_TOKENS:
        return "short_summary"
    if len(tokens) > max_tokens:
        return "long_summary"
    if not summary.isascii():
        return "not_ascii"
    if _MARKUP.search(summary.replace(" ", "")):
        return "markup"
    if leaks(function.code, summary) or leaks(function.code, function.docstring):
        return "code_holds_summary"
    return Pair(question("python", function.code), tokens)


def summary_tokens(docstring: str) -> tuple[str, ...]:
    """Return words and signs of a docstring's first paragraph, which ends before fields and examples too."""
    text = docstring.strip()
    end = _SUMMARY_END.search(text)
    return tuple(_TOKEN.findall(text[: end.start()] if end else text))
