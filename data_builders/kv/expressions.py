"""Expressions as arrays: sampling, exact evaluation and de-duplication, all vectorised over rows.

Operands are key indices or numbers; the caller knows which. All rows of one `Expressions` have the same number of
operands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_builders.errors import UserError
from data_builders.hashing import GOLDEN, Hashes, contains, mixed
from data_builders.kv.text import OPERATORS

MAX_DRAW = 1 << 18
_MAX_BARREN_ROUNDS = 30
_NEARLY_EXHAUSTED = 0.05
_INT64_SAFE = 2.0**62
_PLUS, _MINUS, _TIMES = (OPERATORS.index(sign) for sign in "+-x")


@dataclass(frozen=True)
class Expressions:
    """Operands (rows, num_operands) and operators (rows, num_operands - 1), as indices into OPERATORS."""

    operands: NDArray[np.int32]
    operators: NDArray[np.int8]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.operands)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Expressions:
        """Return some of the rows."""
        return Expressions(self.operands[rows], self.operators[rows])

    @property
    def num_operands(self) -> int:
        """Operands of every row."""
        return int(self.operands.shape[1])

    def substitute(self, values: NDArray[np.int64]) -> Expressions:
        """Replace key indices by their values."""
        return Expressions(values[self.operands].astype(np.int32), self.operators)


Draw = Callable[[int], Expressions]
Accept = Callable[[Expressions], NDArray[np.bool_]]


def concatenate(parts: list[Expressions]) -> Expressions:
    """Concatenate blocks with the same number of operands."""
    return Expressions(
        np.concatenate([part.operands for part in parts]), np.concatenate([part.operators for part in parts])
    )


def draw_operators(rng: np.random.Generator, signs: str, num_operands: int, rows: int) -> NDArray[np.int8]:
    """Draw operators uniformly out of `signs`, shape (rows, num_operands - 1)."""
    choices = np.array([OPERATORS.index(sign) for sign in signs], dtype=np.int8)
    return choices[rng.integers(0, len(choices), (rows, num_operands - 1), dtype=np.int8)]


def draw_keys(
    rng: np.random.Generator, pool: NDArray[np.int64], signs: str, num_operands: int, rows: int
) -> Expressions:
    """Draw expressions over distinct keys of `pool`, uniformly over ordered choices."""
    columns = np.empty((rows, num_operands), dtype=np.int64)
    for position in range(num_operands):
        drawn = rng.integers(0, len(pool) - position, rows)
        # The k-th key not taken yet: step over the taken ones in ascending order.
        for taken in np.sort(columns[:, :position], axis=1).T:
            drawn += drawn >= taken
        columns[:, position] = drawn
    return Expressions(pool[columns].astype(np.int32), draw_operators(rng, signs, num_operands, rows))


def draw_numbers(rng: np.random.Generator, num_values: int, signs: str, num_operands: int, rows: int) -> Expressions:
    """Draw expressions over numbers in 1..num_values, with repetition."""
    operands = rng.integers(1, num_values + 1, (rows, num_operands), dtype=np.int32)
    return Expressions(operands, draw_operators(rng, signs, num_operands, rows))


def fingerprints(expressions: Expressions) -> Hashes:
    """Return a 64-bit hash of every row, (rows,). Equal rows have equal hashes, so no duplicate is ever missed.

    Two different rows may collide (probability about 3e-8 for a million rows); one of them is then dropped.
    """
    state = np.full(len(expressions), expressions.num_operands, dtype=np.uint64)
    for block in (expressions.operands, expressions.operators):
        for column in block.T:
            state = mixed((state ^ column.astype(np.uint64)) + GOLDEN)
    return state


def sample_accepted(count: int, draw: Draw, accept: Accept, what: str) -> Expressions:
    """Draw `count` expressions that `accept` accepts, repeats allowed; `what` names them in errors."""
    parts: list[Expressions] = []
    pace = _Pace(count, what)
    while pace.missing:
        drawn = draw(pace.size)
        kept = drawn[accept(drawn)][: pace.missing]
        parts.append(kept)
        pace.record(len(drawn), len(kept))
    return concatenate(parts)


def sample_distinct(count: int, draw: Draw, accept: Accept, what: str, allow_repeats: bool) -> tuple[Expressions, int]:
    """Draw `count` accepted expressions, distinct if there are enough; return them and how many are surely distinct.

    With `allow_repeats`, once fewer than 1 in 20 draws is new, the rest is drawn without checking for repeats. Without
    it, running out of new expressions raises UserError.
    """
    parts: list[Expressions] = []
    seen = np.empty(0, dtype=np.uint64)
    pace = _Pace(count, what)
    while pace.missing:
        drawn = draw(pace.size)
        kept = drawn[accept(drawn)]
        marks, first = np.unique(fingerprints(kept), return_index=True)
        fresh = np.sort(first[~contains(seen, marks)])
        exhausted = allow_repeats and len(kept) and len(fresh) < _NEARLY_EXHAUSTED * len(kept)
        fresh = fresh[: pace.missing]
        parts.append(kept[fresh])
        seen = np.union1d(seen, marks)
        pace.record(len(drawn), len(fresh))
        if exhausted and pace.missing:
            parts.append(sample_accepted(pace.missing, draw, accept, what))
            return concatenate(parts), count - pace.missing
    return concatenate(parts), count


@dataclass
class _Pace:
    """How many expressions a sampling loop still needs, and how many to draw in the next round."""

    missing: int
    what: str
    rate: float = 1.0
    barren_rounds: int = 0

    @property
    def size(self) -> int:
        return min(MAX_DRAW, int(self.missing / self.rate * 1.05) + 64)

    def record(self, drawn: int, found: int) -> None:
        """Record one round; raises UserError after too many consecutive rounds that found nothing."""
        self.missing -= found
        self.rate = found / drawn if found else max(self.rate / 4, 1e-9)
        self.barren_rounds = 0 if found else self.barren_rounds + 1
        if self.barren_rounds == _MAX_BARREN_ROUNDS:
            raise UserError(
                f"{self.what}: no expression outside the test set is left ({self.missing} are missing);"
                " use more keys or values, or fewer test rows"
            )


def evaluate(numbers: Expressions) -> NDArray[np.int64] | NDArray[np.object_]:
    """Return the exact value of every row, (rows,); `x` binds tighter. Python ints if any row could overflow int64."""
    magnitude_operators = np.where(numbers.operators == _MINUS, np.int8(_PLUS), numbers.operators)
    with np.errstate(over="ignore"):
        # The sum of absolute terms bounds every intermediate value, and float64 cannot wrap around.
        unsafe = _evaluate(numbers.operands.astype(np.float64), magnitude_operators) > _INT64_SAFE
        results = _evaluate(numbers.operands.astype(np.int64), numbers.operators)
    if not unsafe.any():
        return results
    exact = results.astype(object)
    exact[unsafe] = _evaluate(numbers.operands[unsafe].astype(object), numbers.operators[unsafe])
    return exact


def _evaluate(operands: NDArray, operators: NDArray[np.int8]) -> NDArray:
    """Evaluate in the operands' dtype, keeping the signed product of the current term and the sum of finished terms."""
    total = np.zeros(len(operands), dtype=operands.dtype)
    product = operands[:, 0]
    for position in range(operators.shape[1]):
        operator, operand = operators[:, position], operands[:, position + 1]
        times = operator == _TIMES
        total = np.where(times, total, total + product)
        product = np.where(times, product * operand, np.where(operator == _MINUS, -operand, operand))
    return total + product
