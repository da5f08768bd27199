"""Runs side by side: the settings that differ, beside losses and figures of evaluations; sorted, as table and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.document.tables import Cell, Column, Number, Table, Text, table_row
from calmctl.reporting.evaluations import short_folders
from calmctl.reporting.values import number
from calmctl.runs.identity import short_names
from calmctl.units import human_seconds
from data_builders.files import write_text

LOSS = "validation_loss"

FACTS = ("run", "kind", "status", "steps", "loss", LOSS, "seconds", "started")
_LOWER_IS_BETTER = ("loss", "bits_per_byte", "perplexity")
_MAX_SETTINGS, _MAX_FIGURES = 8, 8  # columns of a printed table; CSV and JSON have all
_MAX_LISTED = 3


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        settings: `a.b.c` -> value, of all its settings.
        figures: `task.metric` -> figure, of its evaluations.
        examples: what its validation loss was measured on; equal for runs whose losses can be compared.
    """

    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    figures: Mapping[str, float]
    examples: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        settings: the names of the settings that differ between runs of one kind.
        by: the column that decides which run is the best.
    """

    rows: tuple[Row, ...]
    settings: tuple[str, ...]
    by: str = LOSS

    @property
    def figures(self) -> list[str]:
        """Return the columns of evaluations."""
        return list(dict.fromkeys(name for row in self.rows for name in row.figures))

    @property
    def columns(self) -> list[str]:
        """Return the names of all columns."""
        return [FACTS[0], *self.settings, *FACTS[1:], *self.figures]

    def value(self, row: Row, column: str) -> Any:
        """Return a value of a run; None where it has none."""
        return {**row.settings, **row.figures, **row.facts}.get(column)

    def best(self) -> Row | None:
        """Return the best of at least two runs by the column `by`; None if they cannot be compared."""
        known = [row for row in self.rows if number(self.value(row, self.by)) is not None]
        if len(known) < 2 or (self.by == LOSS and len({row.examples for row in known}) > 1):
            return None
        return min(known, key=lambda row: self._order(row, self.by))

    def verdict(self) -> str:
        """Return a sentence that names the best run, or says why there is none; empty for fewer than two figures."""
        if (best := self.best()) is not None:
            return f"Best by {_named(self.by)}: {best.facts['run']} ({self.value(best, self.by):.4g})."
        if self.by == LOSS and sum(row.facts[self.by] is not None for row in self.rows) > 1:
            return f"No run is named the best by {_named(self.by)}: the losses were measured on different examples."
        return ""

    def ordered(self, column: str) -> Comparison:
        """Return the runs in the order of a column, the best first, those without a value last; `-column`: the worst.

        The name of a setting may be its last part, and that of a figure too.

        Raises:
            UserError: there is no such column.
        """
        name = self._column(column.removeprefix("-"))
        known = [row for row in self.rows if self.value(row, name) is not None]
        others = [row for row in self.rows if self.value(row, name) is None]
        known.sort(key=lambda row: self._order(row, name), reverse=column.startswith("-"))
        return replace(self, rows=(*known, *others), by=name if name in (*self.figures, "loss") else LOSS)

    def _column(self, column: str) -> str:
        found = [name for name in self.columns if name == column]
        found = found or [name for name in self.columns if name.rpartition(".")[2] == column]
        if len(found) != 1:
            there_are = f"could be {' or '.join(found)}" if found else f"is none of {', '.join(self.columns)}"
            raise UserError(f"--sort: the column {column} {there_are}")
        return found[0]

    def _order(self, row: Row, column: str) -> tuple[bool, Any]:
        """Return the key that sorts runs by a column: numbers, better ones first, then texts."""
        value = self.value(row, column)
        if (known := number(value)) is None:
            return True, shown(value)
        is_higher_better = column in self.figures and not column.endswith(_LOWER_IS_BETTER)
        return False, -known if is_higher_better else known

    def records(self) -> list[dict[str, Any]]:
        """Return the runs as JSON has them."""
        best = self.best()
        return [
            {
                **row.facts,
                "is_best": row is best,
                "settings": {name: row.settings.get(name) for name in self.settings},
                "evaluations": dict(row.figures),
            }
            for row in self.rows
        ]

    def table(self) -> Table:
        """Return the runs as a table of settings, losses and figures of evaluations."""
        settings, figures = self.settings[:_MAX_SETTINGS], self.figures[:_MAX_FIGURES]
        facts = [name for name in ("steps", "loss", LOSS) if any(row.facts[name] is not None for row in self.rows)]
        has_kinds = len({row.facts["kind"] for row in self.rows}) > 1
        is_unfinished = any(row.facts["status"] != "complete" for row in self.rows)
        short, names = short_names(self.settings), short_folders([row.facts["run"] for row in self.rows])
        columns = [Column("run", is_text=True), *(Column(short[name], is_text=True) for name in settings)]
        words = ["kind"] * has_kinds + ["status"] * is_unfinished
        columns += [Column(name, is_text=True) for name in words]
        columns += [Column(name.replace("_", " ")) for name in facts] + [Column(name) for name in figures]
        rows: list[tuple[Cell, ...]] = []
        for row, name in zip(self.rows, names, strict=True):
            said = (Text(str(row.facts[word])) for word in words)
            losses = (_cell(row.facts[fact], 0 if fact == "steps" else 4) for fact in facts)
            measured = (_cell(row.figures.get(figure), 3 if "bits" in figure else 1) for figure in figures)
            chosen = (Text(shown(row.settings.get(setting))) for setting in settings)
            rows.append(table_row(Text(name), *chosen, *said, *losses, *measured))
        left_out = [*self.settings[_MAX_SETTINGS:], *self.figures[_MAX_FIGURES:]]
        caption = f"{len(left_out)} more columns in --csv and --json: {', '.join(left_out[:5])}" if left_out else ""
        return Table("Runs", tuple(columns), tuple(rows), caption)

    def overview(self) -> Table:
        """Return the runs as a table of one line each, for a list of runs of any kind."""
        short = short_names(self.settings)
        rows: list[tuple[Cell, ...]] = []
        for row in self.rows:
            started = str(row.facts["started"] or "–").replace("T", " ")[:16]
            took = human_seconds(row.facts["seconds"]) or "–"
            words = (*(str(row.facts[name]) for name in ("run", "kind", "status")), started, took)
            figures = [f"{name} {figure:.4g}" for name, figure in row.figures.items()]
            settings = [f"{short[name]}={shown(row.settings[name])}" for name in self.settings if name in row.settings]
            losses = (_cell(row.facts[name], 4) for name in ("loss", LOSS))
            rows.append(table_row(*map(Text, words), *losses, Text(_first(figures)), Text(_first(settings))))
        columns = [Column(name, is_text=True) for name in ("run", "kind", "status", "started", "took")]
        columns += [Column("loss"), Column("validation")]
        columns += [Column("figures", is_text=True), Column("settings", is_text=True)]
        filled = [place for place in range(len(columns)) if place < 5 or any(row[place] != Text("–") for row in rows)]
        cells = tuple(tuple(row[place] for place in filled) for row in rows)
        return Table("", tuple(columns[place] for place in filled), cells)

    def csv(self) -> str:
        """Return the runs as CSV with exact numbers; values that are no text or number are JSON."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow([_csv_cell(self.value(row, column)) for column in self.columns])
        return text.getvalue()

    def write_csv(self, path: Path) -> None:
        """Write the runs as CSV."""
        write_text(path, self.csv())


def shown(value: Any) -> str:
    """Return the value of a setting for people: floats with six digits."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(value: Any, digits: int) -> Cell:
    known = number(value)
    return Text("–") if known is None else Number(known, digits=digits)


def _named(column: str) -> str:
    return column.replace("_", " ") if column in FACTS else column


def _first(texts: Sequence[str]) -> str:
    """Return the first texts on one line; a dash if there are none."""
    more = f" +{len(texts) - _MAX_LISTED}" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more or "–"


def _csv_cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
