"""Sample predictions: the same questions as m_A, m_B and the composed model answered them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.reporting.kv_results import CALM, MODELS, System
from calmctl.reporting.tables import NOT_RUN, Column, Table, Text, table_row
from data_builders.rows import read_jsonl

QUESTIONS = {
    "substitute": ("KV-MATH, stepwise", "kv_math"),
    "solve_keys": ("KV-MATH, direct", "kv_math_direct"),
    "solve_numbers": ("NUM-MATH", "num_math"),
}
"""Last part of a prediction's id -> what it asks, and the metric that says whether it is right."""

Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""(record, question) -> row of predictions.jsonl."""


@dataclass(frozen=True)
class Sample:
    """One test expression; `rows` maps a system's key to its predictions for the expression, by question."""

    record: str
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def table(self) -> Table:
        """Return questions across and, under one another, prompt, the models' answers and the reference."""
        asked = {question: self._asked(question) for question in QUESTIONS}
        asked = {question: row for question, row in asked.items() if row}
        columns = (
            Column("", is_text=True),
            *(Column(QUESTIONS[question][0], is_text=True) for question in asked),
        )
        body = [table_row(Text("prompt"), *(_code(found.get("prompt")) for found in asked.values()))]
        for system in MODELS:
            answers = (_answer(self.rows[system.key].get(name), QUESTIONS[name][1]) for name in asked)
            body.append(table_row(Text(system.short), *answers))
        body.append(table_row(Text("reference"), *(_code(found.get("reference")) for found in asked.values())))
        return Table(f"Expression {self.record}", columns, tuple(body))

    def _asked(self, question: str) -> Mapping[str, Any]:
        """Return any model's row for a question: all hold the same prompt and reference."""
        rows = (self.rows[system.key].get(question) for system in MODELS)
        return next((found for found in rows if found), {})


def kv_samples(folder: Path, num_right: int = 3, num_wrong: int = 2) -> list[Sample]:
    """Choose held-out expressions: the first that are right stepwise, then the first that are wrong.

    The right ones differ in their number of operands where the test set allows. Fewer, or none, if the
    predictions do not hold as many.
    """
    predictions = {system.key: _predictions(folder, system) for system in MODELS}
    asked = {
        record: row
        for (record, question), row in predictions[CALM.key].items()
        if question == "substitute" and row.get("stratum", "held_out") == "held_out"
    }
    verdicts = {record: is_right(row, "kv_math") for record, row in asked.items()}
    right = [record for record in asked if verdicts[record] is True]
    wrong = [record for record in asked if verdicts[record] is False]
    operands = {record: int(row.get("num_operands") or 0) for record, row in asked.items()}
    chosen = _spread(right, operands, num_right) + wrong[:num_wrong]
    return [Sample(record, {key: _questions(rows, record) for key, rows in predictions.items()}) for record in chosen]


def is_right(row: Mapping[str, Any], metric: str) -> bool | None:
    """Return whether a prediction is right by a metric: its verdict in `metrics`, else `correct`."""
    metrics = row.get("metrics")
    verdict = (metrics if isinstance(metrics, dict) else {}).get(metric, row.get("correct"))
    return None if verdict is None else bool(verdict)


def _predictions(folder: Path, system: System) -> Rows:
    found = {}
    for row in read_jsonl(folder / "eval" / system.run / "predictions.jsonl"):
        record, _, question = str(row.get("id", "")).rpartition("/")
        if record and question in QUESTIONS:
            found[record, question] = row
    return found


def _questions(rows: Rows, record: str) -> dict[str, Mapping[str, Any]]:
    return {question: rows[record, question] for question in QUESTIONS if (record, question) in rows}


def _spread(records: list[str], operands: Mapping[str, int], count: int) -> list[str]:
    """Return the first records of as many operand counts as possible, then the first of the rest."""
    first: dict[int, str] = {}
    for record in records:
        first.setdefault(operands[record], record)
    ordered = [first[key] for key in sorted(first)]
    return (ordered + [record for record in records if record not in ordered])[:count]


def _answer(found: Mapping[str, Any] | None, metric: str) -> Text:
    if found is None:
        return Text(NOT_RUN)
    return Text(_code(found.get("completion")).text, is_code=True, verdict=is_right(found, metric))


def _code(value: Any) -> Text:
    return Text("" if value is None else str(value).strip(), is_code=True)
