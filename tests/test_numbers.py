"""Numbers in what a model wrote: whatever notation and sentence they stand in, they are read back."""

from __future__ import annotations

import random
import time
from decimal import Decimal

import pytest

from evals.metrics.answers import answer
from evals.metrics.numbers import DECIMAL_COMMA, parse_number

PHRASE = "The answer is"
DIGITS = ["0123456789", "０１２３４５６７８９", "০১২৩৪৫৬৭৮৯", "౦౧౨౩౪౫౬౭౮౯", "๐๑๒๓๔๕๖๗๘๙", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९"]
MINUS = ["-", "\u2212", "\uff0d", "\u2013", "\u2011"]
GROUPS = [",", "\u00a0", "\u2009", "\u202f", "'", "\u2019", "{,}", ",\\!", "\\,", "，"]
CURRENCIES = ["$", "€", "£", "US$", "¥", "৳", "฿", "\\$"]
# Each with what an answer may begin and end in; {} is the number.
SENTENCES = [
    f"{PHRASE} {{}}.", f"First 7, then 8.\n{PHRASE}: {{}}", f"{PHRASE} **{{}}**!", f"{PHRASE} {{}} apples for 2 days.",
    f"{PHRASE} {{}}, not 12 or 13.", f"{PHRASE} 3 + 4 = {{}}. Not 12\n13", f"{PHRASE} 2 x 3 = 6 * 1 = {{}} of 20.",
    f"{PHRASE}\n\n{{}}\nQ 5", f"{PHRASE} unclear, 7\n{PHRASE.lower()} {{}}", f"{PHRASE} {{}} (= 3 * 6)",
    f"{PHRASE} x = {{}}", f"{PHRASE} {{}}。12", f"{PHRASE} {{}}% (50)",
    "so 3 of 4 = {}", "{}", "Well: 7 then\n({})", "It is \\boxed{{{}}}, after 9",
    "\\[ \\boxed{{{}\\text{{ kg}}}} \\] 9",
]  # fmt: skip


def grouped(whole: str, separator: str) -> str:
    parts = []
    while whole:
        whole, part = whole[:-3], whole[-3:]
        parts.append(part)
    return separator.join(reversed(parts))


def written(chance: random.Random, language: str) -> tuple[str, Decimal]:
    """Return a number in some notation, and its value."""
    whole, size = str(chance.randrange(10 ** chance.randint(1, 7))), chance.choice([0, 0, 0, 1, 2, 4])
    part = "".join(chance.choice("0123456789") for _ in range(size))
    kind = chance.choice(["plain", "grouped", "power", "fraction", "no zero", "plain", "grouped"])
    comma, value = language in DECIMAL_COMMA, Decimal(f"{whole}.{part or 0}")
    point = "," if part and (comma or (len(whole) < 4 and len(part) != 3 and chance.random() < 0.2)) else "."
    text = whole + (point + part if part else "")
    if kind == "grouped":
        separator = chance.choice([".", " "] if comma and chance.random() < 0.5 else GROUPS)
        point = "," if separator == "." or (comma and separator.isspace()) else "."
        text = grouped(whole, separator) + (point + part if part and len(whole) > 3 else "")
        value = value if part and len(whole) > 3 else Decimal(whole)
    elif kind == "power":
        exponent, mantissa = chance.randint(1, 6), f"{chance.randint(1, 9)}.{chance.randint(0, 99):02}"
        form = chance.choice(["{}e{}", "{}E+{}", "{} × 10^{}", "{} \\times 10^{{{}}}"])
        text, value = form.format(mantissa, exponent), Decimal(mantissa).scaleb(exponent)
    elif kind == "fraction":
        top, bottom, before = chance.randint(1, 8), chance.randint(9, 12), chance.randint(2, 50)
        form = chance.choice(["{0}/{1}", "\\frac{{{0}}}{{{1}}}", "{2} {0}/{1}", "{2}\\frac{{{0}}}{{{1}}}"])
        text, value = form.format(top, bottom, before), Decimal(top) / Decimal(bottom)
        value += before if "{2}" in form else 0
    elif kind == "no zero" and not comma:
        text, value = f".{part or 5}", Decimal(f"0.{part or 5}")
    if kind in ("plain", "grouped") and "\\" not in text:
        text = text.translate(str.maketrans("0123456789", chance.choice(DIGITS)))
    sign, currency = chance.choice(["", "", *MINUS]), chance.choice(["", "", *CURRENCIES]) if kind != "fraction" else ""
    text = chance.choice([f"{sign}{currency}{text}", f"{currency}{sign}{text}"])
    return text, -value if sign else value


@pytest.mark.parametrize("language", ["en", "de", "fr", "te", "zh"])
def test_numbers_are_read_back_from_any_notation_in_any_sentence(language: str) -> None:
    chance = random.Random(language)
    for _ in range(1500):
        text, value = written(chance, language)
        sentence = chance.choice(SENTENCES).format(text)
        assert answer(sentence, PHRASE, language) == value, (sentence, value)
        assert parse_number(text, language) == value, text


@pytest.mark.parametrize(("text", "language", "number"), [
    ("20-12=8", "en", "8"), ("so 3.", "en", "3"), ("x = 2.125", "en", "2.125"), ("x = 2.125", "de", "2125"),
    ("x = 1,234", "de", "1234"), ("x = 0,500", "en", "0.5"), ("x = 1.234.567", "en", "1234567"),
    ("in 2 100 each", "en", "100"), ("in 2 000 each", "en", "2000"), ("x = 114 200 €", "fr", "114200"),
    ("x = 1,14,200", "bn", "114200"), ("= ٣٫٥", "en", "3.5"), ("= ١٬٢٣٤", "en", "1234"), ("= 3½", "en", "3.5"),
    ("The answer is 2 100.", "en", "2100"), ("= 2 × 10³", "en", "2000"), ("= \u200e-5", "en", "-5"),
    ("$-5$", "en", "-5"), ("pages 5\u20137", "en", "7"), ("5 - 7", "en", "7"), ("(5)-7", "en", "7"),
    ("- 5 apples", "en", "5"), ("The answer is - 5", "en", "-5"),
    ("The answer is:\n- 5 apples", "en", "5"), ("= -½", "en", "-0.5"),
    ("The answer is 10/2 = 5", "en", "5"), ("The answer is 5x6 = 30.", "en", "30"), ("12/05/2023", "en", "2023"),
    ("The answer is five. Not 6\n7", "en", "6"), ("The answer is none\n7", "en", "7"), ("version 1.2.3", "en", "3"),
    ("it cost $12 500 each", "en", "12500"), ("1_000", "en", "1000"), ("so 10^3", "en", "1000"),
    ("2*10³", "en", "2000"),
    ("1 and 1e99999999", "en", "1"), ("none", "en", None), ("", "en", None), ("1/0", "en", "0"),
])  # fmt: skip
def test_what_could_be_read_in_two_ways(text: str, language: str, number: str | None) -> None:
    assert answer(text, PHRASE, language) == (None if number is None else Decimal(number))


@pytest.mark.parametrize("text", ["", ".", "1.2.3", "-", "abc", "1,2.3,4", "18 dollars", "five", "1 2", "5-7", "$"])
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(("text", "number"), [
    ("18 €", "18"), ("-$1,250.5", "-1250.5"), ("50%", "50"), ("+5", "5"), ("5.", "5"), (" 5\n", "5"),
])  # fmt: skip
def test_what_is_one(text: str, number: str) -> None:
    assert parse_number(text) == Decimal(number)


REPEATED = [
    "1", "1 ", "1,", "1/", "$", "$1", "-", "1 000", "\\boxed{{}", "= ", "#### ", f"{PHRASE} 5 + 6 ", f"{PHRASE} ",
    "=1+1", "A", " ", "\\frac{1}", "1x10^", "\n*", ".", "1.",
]  # fmt: skip


def test_reading_takes_time_in_proportion_to_the_text() -> None:
    started = time.process_time()
    for text in REPEATED:
        answer(f"{PHRASE}{3000 * text}", PHRASE)
        answer(f"{3000 * text}5", PHRASE)
    assert time.process_time() - started < 10  # it takes a twentieth, unless something is quadratic
