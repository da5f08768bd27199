"""Compare a program with a reference solution on many inputs, by the rules of EvalPlus 0.3.1; runs in the judge."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from evals.sandbox.clock import Clock
from evals.sandbox.expected import load, results
from evals.sandbox.remote import copies_only

_SAME_SET = {
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
}
FOUND = {"check_str", "text_match_three", "text_starta_endb"}
"""MBPP functions whose results are compared only by whether they are None."""
_RTOL = 1e-07
_MIN_SECONDS, _TIMES_REFERENCE = 4.0, 4.0  # limits per input; the second times the reference's seconds


def require_same(
    benchmark: str, entry_point: str, candidate: Callable[..., Any], inputs: Sequence[Any], atol: float
) -> None:
    """Raise AssertionError at the first input for which the candidate's result does not match the reference's.

    Each input has its own time limit. Reading the reference's results (`expected`) does not count.

    Args:
        benchmark: `humaneval` or `mbpp`; some of their problems have rules of their own.
        atol: absolute tolerance for floats; 0 = exact, but 1e-6 from the first expected result that is all floats.
    """
    assert (clock := Clock.current)
    copies_only(candidate)
    for number, (arguments, (seconds, content)) in enumerate(zip(inputs, results(), strict=True)):
        with clock.stopped():
            expected = load(content)
        with clock.within(max(_MIN_SECONDS, _TIMES_REFERENCE * seconds)):
            result = candidate(*arguments)
        if atol == 0 and _is_floats(expected):
            atol = 1e-6
        if not _is_right(benchmark, entry_point, arguments, result, expected, atol):
            raise AssertionError(f"input {number}")


def _is_right(benchmark: str, name: str, arguments: Any, result: Any, expected: Any, atol: float) -> bool:
    if benchmark == "humaneval" and name == "find_zero":
        return bool(abs(sum(factor * math.pow(result, i) for i, factor in enumerate(arguments[0]))) <= atol)
    is_same = bool(result == expected)
    if benchmark == "mbpp":
        is_same = _by_own_rule(name, arguments, result, expected, atol, is_same)
    if is_same or atol == 0:
        return is_same
    return type(result) is type(expected) and _is_close(result, expected, atol)


def _by_own_rule(name: str, arguments: Any, result: Any, expected: Any, atol: float, is_same: bool) -> bool:
    """Apply the rules of MBPP problems that accept several answers."""
    if name == "are_equivalent":
        return True
    if name == "sum_div":
        return is_same or bool(result == 0)
    if name == "surface_Area":
        return is_same or bool(abs(result - _surface_area(*arguments)) <= atol)
    if name == "digit_distance_nums":
        return is_same or bool(result == _digit_distance(*arguments))
    if name in _SAME_SET:
        return set(result) == set(expected)
    if name in FOUND:
        return result is expected if isinstance(result, bool) else expected is (result is not None)
    return is_same


def _surface_area(base_edge: float, height: float) -> int:
    slant_height = math.sqrt((base_edge / 2) ** 2 + height**2)
    return round(base_edge**2 + 4 * (base_edge * slant_height) / 2)


def _digit_distance(first: int, second: int) -> int:
    width = max(len(str(first)), len(str(second)))
    return sum(abs(int(a) - int(b)) for a, b in zip(str(first).zfill(width), str(second).zfill(width), strict=True))


def _is_floats(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _is_close(result: Any, expected: Any, atol: float) -> bool:
    """Compare numbers, or sequences of them, as `numpy.allclose(result, expected, rtol=1e-07, atol=atol)` does."""
    if isinstance(expected, list | tuple):
        is_sequence = isinstance(result, list | tuple) and len(result) == len(expected)
        return is_sequence and all(_is_close(a, b, atol) for a, b in zip(result, expected, strict=True))
    if not isinstance(expected, int | float | complex) or not isinstance(result, int | float | complex):
        return False
    if result == expected:
        return True
    return not math.isinf(abs(expected)) and bool(abs(result - expected) <= atol + _RTOL * abs(expected))
