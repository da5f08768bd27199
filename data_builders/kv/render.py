"""Render expressions in the text format, vectorised with Arrow over millions of rows."""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_builders.kv.expressions import Expressions
from data_builders.kv.text import OPERATORS, TEMPLATES, NumberFormat

_SPACED_OPERATORS = [f" {sign} " for sign in OPERATORS]


class Renderer:
    """Renders the key expressions, number expressions and results of one build as Arrow string arrays."""

    def __init__(self, names: Sequence[str], num_values: int, numbers: NumberFormat) -> None:
        """Precompute the string of every key and every value, so that rendering only looks them up."""
        self._names = pa.array(names)
        # Position 0 is never looked up: values start at 1.
        self._operands = pa.array([numbers.operand(number) for number in range(num_values + 1)])
        self._format = numbers

    def keys(self, expressions: Expressions) -> pa.Array:
        """Render expressions over key indices."""
        return _join(self._names, expressions)

    def numbers(self, expressions: Expressions) -> pa.Array:
        """Render expressions over numbers."""
        return _join(self._operands, expressions)

    def results(self, results: NDArray[np.int64] | NDArray[np.object_]) -> pa.Array:
        """Render results in the build's number format."""
        if results.dtype == object:
            return pa.array([self._format.result(number) for number in results], pa.string())
        if not self._format.padded:
            return pc.cast(pa.array(results), pa.string())
        digits = pc.utf8_lpad(pc.cast(pa.array(np.abs(results)), pa.string()), self._format.result_width, "0")
        return pc.binary_join_element_wise(pc.if_else(pa.array(results < 0), "-", "+"), digits, "")


def decimal(results: NDArray[np.int64] | NDArray[np.object_]) -> pa.Array:
    """Render results as plain decimal integers."""
    return pa.array([str(number) for number in results], pa.string())


def render_kind(kind: str, fields: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Return prompts and completions of a kind: its templates, filled with columns of text."""
    template = TEMPLATES[kind]
    return _fill(template.prompt, fields), _fill(template.completion, fields)


def template_fields(kind: str) -> set[str]:
    """Return the names of the fields that a kind's templates use."""
    return {name for text in TEMPLATES[kind] for _, name, _, _ in Formatter().parse(text) if name}


def _fill(template: str, fields: dict[str, pa.Array]) -> pa.Array:
    pieces: list[pa.Array | str] = []
    for literal, name, _, _ in Formatter().parse(template):
        pieces.append(literal)
        if name:
            pieces.append(fields[name])
    return pc.binary_join_element_wise(*pieces, "")


def _join(words: pa.Array, expressions: Expressions) -> pa.Array:
    columns: list[pa.Array] = []
    operators = pa.array(_SPACED_OPERATORS)
    for position in range(expressions.num_operands):
        if position:
            columns.append(operators.take(pa.array(expressions.operators[:, position - 1])))
        columns.append(words.take(pa.array(expressions.operands[:, position])))
    return pc.binary_join_element_wise(*columns, "")
