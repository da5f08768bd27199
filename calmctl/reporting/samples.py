"""Sample predictions: the answers of every model to the same prompts, from the composition's best to its worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.reporting.document.tables import NOT_RUN, Column, Table, Text, table_row
from calmctl.reporting.measures import HEADLINE_MODELS, Samples
from calmctl.reporting.results import Results
from calmctl.reporting.systems_table import CALM, LORA
from calmctl.reporting.values import number
from calmctl.runs.record import PREDICTIONS_FILE
from data_builders.row_files import iter_rows

LONGEST = 600
"""Longer texts are cut to this number of characters."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One record of a task; `rows` is system key -> part (a key of `parts`) -> prediction."""

    record: str
    rows: Mapping[str, Mapping[str, Row]]
    parts: Mapping[str, tuple[str, str]]

    def table(self, labels: Mapping[str, str]) -> Table:
        """Return a table with a column per part, and rows for the prompt, each model's answer and the reference."""
        asked = {part: row for part in self.parts if (row := self._any(part))}
        columns = (Column("", is_text=True), *(Column(self.parts[part][0], is_text=True) for part in asked))
        body = [table_row(Text("prompt"), *(_code(row.get("prompt"), keep_end=True) for row in asked.values()))]
        for key, label in labels.items():
            answers = (_answer(self.rows.get(key, {}).get(part), self.parts[part][1]) for part in asked)
            body.append(table_row(Text(label), *answers))
        body.append(table_row(Text("reference"), *(_code(row.get("reference")) for row in asked.values())))
        return Table(self.record, columns, tuple(body))

    def _any(self, part: str) -> Row:
        """Return a prediction of any model, for the prompt and reference that all share."""
        return next((found[part] for found in self.rows.values() if part in found), {})


def choose_samples(results: Results) -> list[Sample]:
    """Choose records of every task that has samples, evenly over the range of the composition's scores, best first.

    Tasks without predictions are skipped. Files may be large: they are read line by line, the composition's twice.
    """
    return [sample for task, which in results.layout.samples.items() for sample in _task_samples(results, task, which)]


def labels(results: Results) -> dict[str, str]:
    """Return key -> label of the systems whose answers are shown."""
    return {key: results.label(key) for key in (*HEADLINE_MODELS, LORA) if results.system(key)}


def _task_samples(results: Results, task: str, which: Samples) -> list[Sample]:
    files = {key: paths[0] for key in labels(results) if (paths := _files(results, task, key))}
    if CALM not in files:
        return []
    parts = which.parts or {"": ("", "")}
    first, (field, wanted) = next(iter(parts)), which.only
    scored: dict[str, float] = {}
    for row in _rows(files[CALM]):
        record, part = _record(row, parts)
        if part == first and row.get(field, wanted) == wanted:
            scored.setdefault(record, _score(row, parts[first][1]))
    chosen = _spread([(score, record) for record, score in scored.items()], which.count)
    found: dict[str, dict[str, dict[str, Row]]] = {record: {} for record in chosen}
    for key, path in files.items():
        for row in _rows(path):
            record, part = _record(row, parts)
            if record in found and part is not None:
                found[record].setdefault(key, {}).setdefault(part, row)
    return [Sample(_titled(task, record), found[record], parts) for record in chosen]


def _record(row: Row, parts: Mapping[str, tuple[str, str]]) -> tuple[str, str | None]:
    """Return the record's id and the part of a prediction; the part is None if it is not shown."""
    record = str(row.get("id"))
    if "" in parts:
        return record, ""
    start, _, part = record.rpartition("/")
    return start, part if part in parts else None


def _titled(task: str, record: str) -> str:
    return record if task in record.lower() else f"{task}, {record}"


def _files(results: Results, task: str, key: str) -> list[Path]:
    paths = (results.folder / each.folder / PREDICTIONS_FILE for each in results.evaluations(task, key))
    return [path for path in paths if path.exists()]


def _rows(path: Path) -> Iterator[Row]:
    """Return the predictions in a file; raises UserError if it is damaged."""
    return iter_rows(path, {})


def _score(row: Row, metric: str) -> float:
    found = number(row.get("sentence_chrf1"))
    return float(bool(_verdict(row, metric))) if found is None else found


def _verdict(row: Row, metric: str) -> bool | None:
    """Return whether a prediction is right by a metric: its verdict in `metrics`, else `correct`."""
    metrics = row.get("metrics")
    verdict = (metrics if isinstance(metrics, dict) else {}).get(metric, row.get("correct"))
    return verdict if isinstance(verdict, bool) else None


def _spread(scored: Sequence[tuple[float, str]], count: int) -> list[str]:
    """Split the ranking into `count` equal parts and return one record of each, from different groups if possible.

    Take the best record of each part, but the worst of the last part, so that a wrong answer is shown if there is one.
    """
    ranked = [record for _, record in sorted(scored, key=lambda pair: (-pair[0], pair[1]))]
    if len(ranked) <= count:
        return ranked
    chosen: list[str] = []
    for part in range(count):
        window = ranked[part * len(ranked) // count : (part + 1) * len(ranked) // count]
        groups = {record.rpartition("/")[0] for record in chosen}
        fresh = [record for record in window if record.rpartition("/")[0] not in groups]
        chosen.append((fresh or window)[-1 if part == count - 1 else 0])
    return chosen


def _answer(row: Row | None, metric: str) -> Text:
    if row is None:
        return Text(NOT_RUN)
    answer = row.get("answer")
    text = _code(answer if isinstance(answer, str) else row.get("completion")).text
    return Text(text, is_code=True, verdict=_verdict(row, metric))


def _code(value: Any, keep_end: bool = False) -> Text:
    text = "" if value is None else str(value).strip("\n")
    if len(text) > LONGEST:
        text = f"… {text[-LONGEST:]}" if keep_end else f"{text[:LONGEST]} …"
    return Text(text, is_code=True)
