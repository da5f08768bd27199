"""Find numbers in text, in any notation, and read them as a language writes them.

Read in every language:

- a minus sign of any kind, before or after a currency sign (`-$5`, `$-5`, `\u22125`), not between numbers (`5-7`);
- digits of every script, full-width ones included, with the script's separators;
- thousands separated by commas, points, apostrophes, underscores, thin or no-break spaces; by plain spaces only if no
  other reading is possible (`2 000`, `$2 500`), in languages that write so, or at the start of an answer; Indian
  groups (`1,14,200`);
- decimals with or without a digit before the point (`.5`); after a comma that cannot separate thousands (`2,5`);
- powers of ten (`1e3`, `1.5 \u00d7 10^3`), fractions (`1/2`, `3 1/2`, `\u00bd`, `\\frac{1}{2}`);
- LaTeX's spacing and escapes (`9{,}500`, `9,\\!500`, `2\\,000`, `\\$5`, `50\\%`).

A point and three digits (`1.234`) are a decimal fraction, but thousands in a language with decimal commas; a comma and
three digits (`1,234`) are thousands everywhere. Percent signs are ignored: 50% is 50. Words (`five`, `2 million`) are
not read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

# Languages that write 2,5 for two and a half, and separate thousands by a point or a space.
DECIMAL_COMMA = frozenset({"de", "es", "fr", "ru"})
MAX_EXPONENT = 30  # power of ten; a larger one is no real answer, and its digits would fill the memory

_SIGNS = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-")
_SEPARATORS = {"\uff0c": ",", "\u066c": ",", "\uff0e": ".", "\u066b": ".", "\u2019": "'", "\u2044": "/", "\u2215": "/"}
_FULL_WIDTH = {"\uff0f": "/", "\uff1d": "=", "\uff05": "%", "\uff0b": "+", "\uff0a": "*", "\u22c5": "\u00b7"}
_UNIFORM = str.maketrans(_SIGNS | _SEPARATORS | _FULL_WIDTH)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_LATEX = (
    (re.compile(r"\{([.,])\}"), r"\1"),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ]"), "\u2009"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "\u00d7"),
    (re.compile(r"\\([$%])"), r"\1"),
)
_FRACTION = re.compile(r"(\d?)\s*\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))")
_BARE_POWER = re.compile(
    r"(?<![\d.,^*x\u00d7\u00b7])(?<![*x\u00d7\u00b7] )10(?=\^\{?[-+]?\d|[\u2070\u00b9\u00b2\u00b3\u2074-\u2079])"
)
_CURRENCIES = (
    "$\u00a2-\u00a5\u058f\u060b\u09f2\u09f3\u09fb\u0af1\u0bf9\u0e3f\u17db\u20a0-\u20cf"
    "\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6"
)
_NARROW = "\u00a0\u2009\u202f'_"
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*|[1-9]\d?(?:(,)\d{2})*,\d{3}")


@dataclass(frozen=True)
class Number:
    """A number in a text; `start` to `end` covers it with its sign and currency."""

    value: Decimal
    start: int
    end: int


def uniform(text: str) -> str:
    """Normalise the digits, signs and separators of all scripts and of LaTeX, most of them to ASCII."""
    if "\\" in text or "{" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
        text = _FRACTION.sub(_fraction_text, text)
    text = _BARE_POWER.sub("1\u00d710", text)
    if text.isascii():
        return text
    return "".join(_ascii(c) for c in re.sub(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])", " ", text.translate(_UNIFORM)))


def _ascii(character: str) -> str:
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.digit(character))
    if unicodedata.category(character) == "Cf":
        return ""  # direction marks and joiners can separate a sign from its number
    form = unicodedata.normalize("NFKC", character) if unicodedata.category(character) == "No" else ""
    return form.replace("\u2044", "/") if "\u2044" in form else character


def _fraction_text(match: re.Match[str]) -> str:
    whole, top, bottom = match[1], match[2] or match[4], match[3] or match[5]
    return f"{whole} {top}/{bottom}" if whole else f"{top}/{bottom}"


def numbers_of(text: str, language: str = "en", announced: bool = False) -> Iterator[Number]:
    """Yield the numbers of a text that `uniform` has normalised, read as `language` writes them.

    Args:
        announced: the text is an answer: its first number may have a space after its sign and between its thousands.
    """
    place = 0
    if announced and (first := _pattern(language, True).match(text, _opening(text))):
        yield from _read(first, language)
        place = first.end()
    for match in _pattern(language, False).finditer(text, place):
        yield from _read(match, language)


def parse_number(text: str, language: str = "en") -> Decimal | None:
    """Parse a text that is one number, with or without a currency or percent sign; None if it is not."""
    bare = re.sub(rf"\A\+|[\s{_CURRENCIES}%.,]+\Z", "", uniform(text).strip())
    match = _pattern(language, True).fullmatch(bare)
    values = [number.value for number in _read(match, language)] if match else []
    return values[0] if len(values) == 1 else None


def _opening(text: str) -> int:
    """Return the index after leading whitespace, colons, emphasis and opening brackets."""
    return len(text) - len(text.lstrip(" \t\r\n:\uff1a*_`([{"))


@cache
def _pattern(language: str, announced: bool) -> re.Pattern[str]:
    spaces = _NARROW + (" " if announced or language in DECIMAL_COMMA else "")
    currency = rf"(?:[A-Z]{{0,3}}[{_CURRENCIES}]{{1,2}}\s?(?P<inner>-)?)?"
    minus = r"-\s*" if announced else "-"
    # Plain spaces separate thousands after a currency sign, or if a group starts with 0, so is no number itself.
    money = rf"(?<=[{_CURRENCIES}])\d{{1,3}}(?: \d{{3}})+(?!\d)"
    zeros = r"\d{1,3}(?: \d{3})*? 0\d\d(?: \d{3})*(?!\d)"
    grouped = rf"(?:\d{{1,3}}(?:[{spaces}]\d{{3}})+(?!\d)|{money}|{zeros})(?:[.,]\d+)?"
    fraction = r"(?<!\d/)(?:(?P<whole>\d+) )?(?P<top>\d+) ?/ ?(?P<bottom>\d+)(?![\d/]|[.,]\d)"
    decimal = r"\d+(?:[.,]\d+)*|(?<![\w.,])\.\d+"
    ten = r"[eE](?P<e>[-+]?\d+)(?!\w)| ?[\u00d7x*\u00b7] ?10(?:\^\{?(?P<caret>[-+]?\d+)\}?|(?P<raised>[⁻⁺]?[⁰¹²³⁴-⁹]+))"
    return re.compile(
        rf"(?:(?<![\w)\]}}%])(?P<minus>{minus}))?{currency}"
        rf"(?:{fraction}|(?P<magnitude>{grouped}|{decimal})(?:{ten})?)"
    )


def _read(match: re.Match[str], language: str) -> Iterator[Number]:
    """Yield the matched number, or its parts if they do not form one number (1.2.3)."""
    negative = bool(match["minus"] or match["inner"])
    if match["top"]:
        values = _fraction(match)
    else:
        value = _magnitude(match["magnitude"], language)
        parts = [part for part in re.split(r"[.,]", match["magnitude"]) if part]
        values = [Decimal(part) for part in parts] if value is None else [value]
        exponent = match["e"] or match["caret"] or (match["raised"] or "").translate(_SUPERSCRIPTS)
        if exponent:
            is_sane = len(exponent) < 4 and abs(int(exponent)) <= MAX_EXPONENT
            values = [values[-1].scaleb(int(exponent))] if is_sane else []
    for value in values:
        yield Number(-value if negative else value, match.start(), match.end())


def _fraction(match: re.Match[str]) -> list[Decimal]:
    whole, top, bottom = (Decimal(match[part] or 0) for part in ("whole", "top", "bottom"))
    if bottom and (not match["whole"] or top < bottom):
        return [whole + top / bottom]
    return [Decimal(match[part]) for part in ("whole", "top", "bottom") if match[part]]


def _magnitude(written: str, language: str) -> Decimal | None:
    """Return the value of digits with points, commas and spaces, or None if they do not form one number."""
    bare = re.sub(rf"[ {_NARROW}]", "", written)
    if bare != written:
        return Decimal(bare.replace(",", "."))
    if "." in bare and "," in bare:
        decimal = max(".,", key=bare.rfind)
        whole, part = bare.rsplit(decimal, 1)
        grouped = _GROUPED.fullmatch(whole)
        if grouped is None or decimal in whole:
            return None
        return Decimal(f"{re.sub('[.,]', '', whole)}.{part}")
    separators = bare.count(".") + bare.count(",")
    if separators and _GROUPED.fullmatch(bare):
        # One point and three digits are a decimal fraction in languages with decimal points.
        if "," in bare or language in DECIMAL_COMMA or separators > 1:
            return Decimal(re.sub("[.,]", "", bare))
    elif separators > 1:
        return None
    return Decimal(bare.replace(",", "."))
