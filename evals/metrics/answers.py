"""Numbers in what a model wrote: found, read in the language's own notation, and compared as numbers.

`answer` is the comparison to trust. `strict_answer` and `flexible_answer` are the two strings that harnesses compare:
the one behind the answer's phrase, and the last one anywhere.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import cache

# Languages that write 2,5 for two and a half, and part thousands with a point or a space.
DECIMAL_COMMA = frozenset({"de", "es", "fr", "ru"})
_SPACES = "\u00a0\u2009\u202f"
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*")
GSM8K_PHRASE = "####"
_GSM8K = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
# What may stand between "The answer is" and the number: a colon, a currency, emphasis.
_BETWEEN = r"[\s:\uff1a*$\u20ac\u00a3\u00a5\u20b9\u20bd\u0e3f\u09f3]*"
_UNIFORM = str.maketrans({"\uff0c": ",", "\uff0e": ".", "\u066c": ",", "\u066b": ".", "\u2212": "-", "\uff0d": "-"})


def answer(text: str, phrase: str, language: str = "en") -> Decimal | None:
    """Return the last number of the line that the answer's phrase (a regular expression) begins, or else of the text.

    Of several such lines the last counts, so that "The answer is 5 + 6 = 11." gives 11 whatever stands before it.
    """
    number = _number_pattern(language)
    uniform = _uniform(text)
    for line in reversed(re.findall(f"(?i:{phrase})(.*)", uniform)):
        if numbers := number.findall(line):
            return parse_number(numbers[-1], language)
    numbers = number.findall(uniform)
    return parse_number(numbers[-1], language) if numbers else None


def strict_answer(text: str, phrase: str) -> str | None:
    """Return the first number that follows the phrase, without commas, currency and a final point.

    Behind GSM8K's `####` comes one space and the number, as its authors have it; prose is read more kindly.
    """
    found = _GSM8K.search(text) if phrase == GSM8K_PHRASE else _behind(phrase).search(_uniform(text))
    return _bare(found[1]) if found else None


def flexible_answer(text: str) -> str | None:
    """Return the last thing that looks like a number, without commas, currency and a final point."""
    found = _FLEXIBLE.findall(text)
    return _bare(found[-1][0] or found[-1][1]) if found else None


def parse_number(text: str, language: str = "en") -> Decimal | None:
    """Read one number as `language` writes it; None where it is none."""
    bare = re.sub(rf"[\s{_SPACES}]", "", _uniform(text)).rstrip(".,")
    comma_language = language in DECIMAL_COMMA
    if "." in bare and "," in bare:
        decimal = "." if bare.rfind(".") > bare.rfind(",") else ","
        bare = bare.replace("," if decimal == "." else ".", "").replace(decimal, ".")
    elif grouped := _THOUSANDS.fullmatch(bare):
        # One point and three digits behind it are thousandths where a point marks decimals.
        if grouped[1] == "," or comma_language or bare.count(".") > 1:
            bare = bare.replace(grouped[1], "")
    elif comma_language and bare.count(",") == 1:
        bare = bare.replace(",", ".")
    else:
        bare = bare.replace(",", "")
    return Decimal(bare) if re.fullmatch(r"-?\d+(\.\d+)?", bare) else None


def _uniform(text: str) -> str:
    """Return the text with the digits, separators and minus signs of every script as ASCII has them."""
    text = text.translate(_UNIFORM)
    if text.isascii():
        return text
    return "".join(str(unicodedata.digit(c)) if not c.isascii() and c.isdecimal() else c for c in text)


@cache
def _behind(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"{phrase}{_BETWEEN}(-?[0-9.,]+)")


@cache
def _number_pattern(language: str) -> re.Pattern[str]:
    spaces = _SPACES + (" " if language in DECIMAL_COMMA else "")
    sign = r"(?:(?<![\w)])-)?"
    return re.compile(rf"{sign}\d{{1,3}}(?:[{spaces}]\d{{3}})+(?!\d)(?:[.,]\d+)?|{sign}\d[\d.,]*")


def _bare(text: str) -> str:
    return text.replace(",", "").replace("$", "").removesuffix(".")
