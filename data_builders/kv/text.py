"""The text format "kv-1" of the key-value task: templates, numbers, and the parsing of completions.

It needs only the standard library; `render.py` renders millions of rows with Arrow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

FORMAT: Final = "kv-1"
OPERATORS: Final = "+-x"
WORDS: Final = ("substitute", "solve")


class Template(NamedTuple):
    """Prompt and completion of one kind of row, with {keys}, {context}, {numbers} and {value} to fill."""

    prompt: str
    completion: str


TEMPLATES: Final = {
    "kv_subs": Template("substitute: {keys} =", " {numbers} ="),
    "stepwise": Template("substitute: {keys} =", " {numbers} = {value}"),
    "direct": Template("solve: {keys} =", " {value}"),
    "num_math": Template("solve: {numbers} =", " {value}"),
    "num_math_context": Template("substitute: {context} = {numbers} =", " {value}"),
}
# Kinds whose text continues after the completion, so that models must not learn to stop there.
OPEN_ENDED: Final = frozenset({"kv_subs"})


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are written: `natural` (7, -14) or `padded` (07, -014; results always signed)."""

    style: str
    operand_width: int
    result_width: int

    @property
    def padded(self) -> bool:
        """Whether numbers are zero-padded to a fixed width."""
        return self.style == "padded"

    def operand(self, number: int) -> str:
        """Write one operand."""
        return str(number).zfill(self.operand_width) if self.padded else str(number)

    def result(self, number: int) -> str:
        """Write one result."""
        if not self.padded:
            return str(number)
        return ("-" if number < 0 else "+") + str(abs(number)).zfill(self.result_width)


def number_format(style: str, num_values: int, max_operands: int, operators: str) -> NumberFormat:
    """Return the format whose widths fit every operand in 1..num_values and every possible result."""
    largest = max_operands * num_values
    if "x" in operators:
        largest = max(largest, num_values**max_operands)
    return NumberFormat(style, len(str(num_values)), len(str(largest)))


# Atomic groups prevent backtracking: a number that is rejected as a whole must not match without its last digits.
_VALUE = re.compile(r"\s*([-+]?)[^\S\n]*((?>[0-9](?:[^\S\n]*[0-9])*))(?![^\S\n]*[-+x*/.,][^\S\n]*[0-9]|[A-Za-z_])")
_EXPRESSION = re.compile(r"[0-9]+(?:[-+x][0-9]+)*")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def parse_value(text: str) -> str | None:
    """Return the integer at the start of `text` in canonical decimal (`-014` becomes `-14`), or None.

    White space and zero padding do not matter. Text after the integer is ignored, unless it makes the integer part of
    an expression, a fraction or a word. Digits stay text, so no completion is too long to parse.
    """
    match = _VALUE.match(text)
    if match is None:
        return None
    digits = "".join(match[2].split()).lstrip("0")
    if not digits:
        return "0"
    return ("-" if match[1] == "-" else "") + digits


def parse_expression(text: str) -> str | None:
    """Return an expression over numbers without white space and zero padding (`12+7-33`), or None."""
    compact = "".join(text.split())
    if _EXPRESSION.fullmatch(compact) is None:
        return None
    return _LEADING_ZEROS.sub("", compact)


def parse_substitution(completion: str) -> tuple[str | None, str | None]:
    """Return (expression, value) of a completion to a `substitute:` prompt; each is None if it cannot be parsed.

    The expression is before the first `=`, the value after it. Without any `=`, the first line is the expression and
    there is no value.
    """
    before, equals, after = completion.partition("=")
    if not equals:
        return parse_expression(before.strip().partition("\n")[0]), None
    return parse_expression(before), parse_value(after)
