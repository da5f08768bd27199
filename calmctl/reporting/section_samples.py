"""Sample predictions: the same questions as m_A, m_B and the composition answered them, whole quality range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.reporting.checked import number
from calmctl.reporting.section_results import SectionResults
from calmctl.reporting.sections import CALM, HEADLINE_MODELS, LORA
from calmctl.reporting.tables import NOT_RUN, Column, Table, Text, table_row
from data_builders.rows import iter_rows

PREDICTIONS_FILE = "predictions.jsonl"
LONGEST = 600
"""Characters of a text that are shown."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One record of a task; `rows` maps a system's key to its prediction."""

    record: str
    rows: Mapping[str, Row]

    def table(self, labels: Mapping[str, str]) -> Table:
        """Return prompt, the models' answers and the reference under one another."""
        first = next(iter(self.rows.values()))
        body = [table_row(Text("prompt"), _code(first.get("prompt"), keep_end=True))]
        body += [table_row(Text(label), _answer(self.rows.get(key))) for key, label in labels.items()]
        body.append(table_row(Text("reference"), _code(first.get("reference"))))
        return Table(self.record, (Column("", is_text=True), Column("", is_text=True)), tuple(body))


def section_samples(results: SectionResults) -> list[Sample]:
    """Choose records of every task that has samples, evenly over the composition's own scores, best first.

    Fewer, or none, where predictions are missing. Files are read twice, a line at a time: they may be large.
    """
    return [sample for task, count in results.section.samples.items() for sample in _task_samples(results, task, count)]


def labels(results: SectionResults) -> dict[str, str]:
    """Return the systems whose answers are shown."""
    return {key: results.label(key) for key in (*HEADLINE_MODELS, LORA) if results.system(key)}


def _task_samples(results: SectionResults, task: str, count: int) -> list[Sample]:
    files = {key: paths[0] for key in labels(results) if (paths := _files(results, task, key))}
    if CALM not in files:
        return []
    chosen = _spread([(_score(row), str(row.get("id"))) for row in _rows(files[CALM])], count)
    found: dict[str, dict[str, Row]] = {record: {} for record in chosen}
    for key, path in files.items():
        for row in _rows(path):
            if (record := str(row.get("id"))) in found:
                found[record].setdefault(key, row)
    return [Sample(f"{task}, {record}" if task not in record.lower() else record, found[record]) for record in chosen]


def _files(results: SectionResults, task: str, key: str) -> list[Path]:
    paths = (results.folder / each.folder / PREDICTIONS_FILE for each in results.evaluations(task, key))
    return [path for path in paths if path.exists()]


def _rows(path: Path) -> Iterator[Row]:
    """Return the predictions of a file; raises UserError for a damaged one."""
    return iter_rows(path, {})


def _score(row: Row) -> float:
    found = number(row.get("sentence_chrf1"))
    return float(bool(row.get("correct"))) if found is None else found


def _spread(scored: Sequence[tuple[float, str]], count: int) -> list[str]:
    """Return a record of each of `count` equal parts of the ranking, each of another group if possible."""
    ranked = [record for _, record in sorted(scored, key=lambda pair: (-pair[0], pair[1]))]
    if len(ranked) <= count:
        return ranked
    chosen: list[str] = []
    for part in range(count):
        window = ranked[part * len(ranked) // count : (part + 1) * len(ranked) // count]
        groups = {record.rpartition("/")[0] for record in chosen}
        fresh = [record for record in window if record.rpartition("/")[0] not in groups]
        chosen.append((fresh or window)[0])
    return chosen


def _answer(row: Row | None) -> Text:
    if row is None:
        return Text(NOT_RUN)
    answer = row.get("answer")
    text = _code(answer if isinstance(answer, str) else row.get("completion")).text
    verdict = row.get("correct")
    return Text(text, is_code=True, verdict=verdict if isinstance(verdict, bool) else None)


def _code(value: Any, keep_end: bool = False) -> Text:
    text = "" if value is None else str(value).strip("\n")
    if len(text) > LONGEST:
        text = f"… {text[-LONGEST:]}" if keep_end else f"{text[:LONGEST]} …"
    return Text(text, is_code=True)
