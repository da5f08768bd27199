"""Report of any evaluations: one table per task, one row per run, and warnings where runs are not comparable."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from calmctl.reporting.document.page import Block, Document, Paragraph, Section, write_document
from calmctl.reporting.document.tables import Cell, Column, Number, Table, Text, table_row
from calmctl.reporting.evaluations import (
    BITS,
    BY_SET,
    Evaluation,
    by_task,
    not_comparable,
    read_evaluation,
    short_folders,
)
from data_builders.values import write_json

# What guessing would reach: any answer, and always the most frequent one.
GUESSES = ("chance", "majority")


def read_evaluations(folders: Sequence[Path]) -> list[Evaluation]:
    """Read the evaluations in some folders.

    Raises:
        UserError: a folder is no evaluation, or is damaged.
    """
    return [read_evaluation(Path(), str(folder)) for folder in folders]


def evaluation_tables(evaluations: Sequence[Evaluation], root: Path | None = None) -> list[Table]:
    """Return the tables of each task: all runs, and figures by set; links are relative to `root`, None = no links."""
    tables = []
    for task, found in by_task(evaluations).items():
        tables += [_table(task, found, root), *_tables_by_set(task, found)]
    return tables


def _table(task: str, evaluations: Sequence[Evaluation], root: Path | None) -> Table:
    metrics = list(dict.fromkeys(metric for found in evaluations for metric in found.metrics))
    names = short_folders([found.folder for found in evaluations])
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


def _tables_by_set(task: str, evaluations: Sequence[Evaluation]) -> Iterator[Table]:
    """Yield a table for each metric that was measured set by set, with what guesses reach where there are choices."""
    runs = short_folders([found.folder for found in evaluations])
    by_run = [found.breakdowns.get(BY_SET, {}) for found in evaluations]
    names = {name: label for found in evaluations for name, label in found.names.items()}
    for metric in dict.fromkeys(metric for found in evaluations for metric in found.metrics):
        sets = list(dict.fromkeys(name for by_set in by_run for name, row in by_set.items() if metric in row))
        if not sets:
            continue
        rows: list[tuple[Cell, ...]] = []
        for run, by_set, found in zip(runs, by_run, evaluations, strict=True):
            own = (Number(by_set.get(name, {}).get(metric)) for name in sets)
            rows.append(table_row(Text(run), *own, Number(found.metrics.get(metric))))
        for guess in GUESSES:
            figures = [next((row[name][guess] for row in by_run if guess in row.get(name, {})), None) for name in sets]
            known = [figure for figure in figures if figure is not None]
            if known:
                mean = sum(known) / len(known) if len(known) == len(sets) else None
                cells = (Text("–") if figure is None else Number(figure) for figure in (*figures, mean))
                rows.append(table_row(Text(guess), *cells))
        columns = (Column("run", is_text=True), *(Column(names.get(name, name)) for name in sets), Column("mean"))
        yield Table(f"{task}: {metric} by set", columns, tuple(rows), "Percent.")


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
