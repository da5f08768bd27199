"""Report of any evaluations: one table per task, one row per run, and warnings where runs are not comparable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calmctl.reporting.document.page import Block, Document, Paragraph, Section, write_document
from calmctl.reporting.document.tables import Cell, Column, Number, Table, Text, table_row
from calmctl.reporting.evaluations import BITS, Evaluation, by_task, not_comparable, read_evaluation
from data_builders.values import write_json


def read_evaluations(folders: Sequence[Path]) -> list[Evaluation]:
    """Read the evaluations in some folders.

    Raises:
        UserError: a folder is no evaluation, or is damaged.
    """
    return [read_evaluation(Path(), str(folder)) for folder in folders]


def evaluation_tables(evaluations: Sequence[Evaluation], root: Path | None = None) -> list[Table]:
    """Return one table per task; links are relative to `root`, None = no links."""
    return [_table(task, found, root) for task, found in by_task(evaluations).items()]


def _table(task: str, evaluations: Sequence[Evaluation], root: Path | None) -> Table:
    metrics = list(dict.fromkeys(metric for found in evaluations for metric in found.metrics))
    names = _short([found.folder for found in evaluations])
    rows: list[tuple[Cell, ...]] = []
    for found, name in zip(evaluations, names, strict=True):
        href = os.path.relpath(found.folder, root) if root is not None else ""
        figures = (Number(found.metrics.get(metric), digits=3 if metric == BITS else 1) for metric in metrics)
        rows.append(
            table_row(
                Text(name, href=href),
                Text(found.model or "–"),
                Text("–" if found.n is None else f"{found.n:,}"),
                *figures,
            )
        )
    columns = (Column("run", is_text=True), Column("model", is_text=True), Column("records"))
    lower = "Bits per byte: lower is better." if BITS in metrics else ""
    return Table(task, (*columns, *(Column(metric) for metric in metrics)), tuple(rows), lower)


def _short(folders: Sequence[str]) -> list[str]:
    """Return the folders relative to their common parent."""
    absolute = [os.path.abspath(folder) for folder in folders]
    start = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [os.path.relpath(path, start) for path in absolute]


def evaluation_figures(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return the figures as JSON."""
    rows = [
        {"run": found.folder, "task": found.task, "model": found.model, "n": found.n, "metrics": dict(found.metrics)}
        for found in evaluations
    ]
    return {"evaluations": rows, "not_comparable": list(not_comparable(by_task(evaluations)).values())}


def write_evaluations(evaluations: Sequence[Evaluation], folder: Path) -> list[Path]:
    """Write `report.md`, `report.html` and `report.json` into a folder and return their paths."""
    tasks = by_task(evaluations)
    warnings, sections = not_comparable(tasks), []
    for table in evaluation_tables(evaluations, folder):
        warning = warnings.get(table.title)
        blocks: tuple[Block, ...] = (Paragraph(warning, is_warning=True), table) if warning else (table,)
        sections.append(Section(table.title, blocks))
    count = f"{len(evaluations)} evaluation{'s' if len(evaluations) > 1 else ''}"
    written = write_document(Document("Evaluations", (f"{count}: {', '.join(tasks)}.",), tuple(sections)), folder)
    write_json(folder / "report.json", evaluation_figures(evaluations))
    return [*written, folder / "report.json"]
