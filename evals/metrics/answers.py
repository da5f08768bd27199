"""Extract the final number of an answer, leniently or exactly as published evaluation code does.

`answer` is ours: lenient, and returns a number. The others return the strings that published code compares:
`official_answer` of openai/grade-school-math, `strict_answer` and `flexible_answer` of lm-evaluation-harness.
"""

from __future__ import annotations

import re
import string
from decimal import Decimal
from functools import cache

from evals.metrics.numbers import numbers_of, parse_number, uniform

__all__ = [
    "answer",
    "flexible_answer",
    "gsm8k_string",
    "mgsm_string",
    "official_answer",
    "parse_number",
    "strict_answer",
]

GSM8K_PATTERN = r"#### (\-?[0-9\.\,]+)"
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SENTENCE_END = re.compile(r"\n|[.!?](?=[\s\"'*)]|\Z)|[\u3002\uff01\uff1f\u0964\u061f]")
_OPERATOR = re.compile(r"[-+*/\u00d7\u00f7\u00b7^]|(?<![^\W\d])x(?![^\W\d])")
# A colon, emphasis, line breaks, and a list bullet, which must not be read as a minus.
_BEFORE_ANSWER = re.compile(r"\A[\s:\uff1a*_`]*?\n\s*(?:[-*] )?[\s*_`]*|\A[\s:\uff1a*_`]+")
_EQUALS = re.compile("[=\u2248]")


def answer(text: str, phrase: str, language: str = "en") -> Decimal | None:
    r"""Return the number announced by `phrase` (a regular expression), or None if the text has no number.

    The last announcement with a number counts; without one, the last `\boxed{}` with a number, else the last number of
    the text. In the announced sentence the first number counts, or the result of the calculation that it begins: "The
    answer is 5 + 6 = 11, of 20" gives 11. The module `numbers` lists what is read as a number.
    """
    same = uniform(text)
    phrases = list(_phrase(phrase).finditer(same))
    ends = [match.start() for match in phrases[1:]] + [len(same)]
    behind = [same[match.end() : end] for match, end in zip(phrases, ends, strict=True)] if phrases else []
    for announced in (*reversed(behind), *reversed(_BOXED.findall(same))):
        if (found := _announced(announced, language)) is not None:
            return found
    numbers = list(numbers_of(same, language))
    return numbers[-1].value if numbers else None


def official_answer(text: str) -> str | None:
    """Return the first number after `#### `, without commas, as `extract_answer` of openai/grade-school-math does."""
    found = strict_answer(text, GSM8K_PATTERN)
    return None if found is None else found.replace(",", "")


def strict_answer(text: str, pattern: str) -> str | None:
    """Return the first match of a task's pattern, as lm-evaluation-harness's filter `strict-match` does."""
    found = re.search(pattern, text)
    return found[1] if found else None


def flexible_answer(text: str) -> str | None:
    """Return the last number-like string, as lm-evaluation-harness's filter `flexible-extract` does."""
    found = _FLEXIBLE.findall(text)
    return found[-1][0] or found[-1][1] if found else None


def gsm8k_string(text: str) -> str:
    """Normalise a string as the harness's GSM8K does: lower-case, no commas, $, final point, or text up to `#### `."""
    bare = re.sub(r"(?s).*#### ", "", text.replace(",", "").replace("$", ""))
    return re.sub(r"\.$", "", bare).lower()


def mgsm_string(text: str) -> str:
    """Normalise a string as the harness's MGSM does: lower-case, no punctuation, decimal points and minus included."""
    return text.lower().translate(_PUNCTUATION)


@cache
def _phrase(phrase: str) -> re.Pattern[str]:
    return re.compile(f"(?i:{phrase})")


def _announced(text: str, language: str) -> Decimal | None:
    """Return the first number of an announced answer, or the result of the calculation that it begins."""
    line = _BEFORE_ANSWER.sub("", text).partition("\n")[0]
    first = next(numbers_of(line, language, announced=True), None)
    if first is None:
        return None
    end = _SENTENCE_END.search(line, first.end)
    sentence = line[: end.start()] if end else line
    found = first
    for part in _EQUALS.split(sentence):
        numbers = numbers_of(part, language, announced=True)
        head, second = next(numbers, None), next(numbers, None)
        if head is None:
            continue
        found = head
        if second is None or not _OPERATOR.search(part, head.end, second.start):
            break
    return found.value
