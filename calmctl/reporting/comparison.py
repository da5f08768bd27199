"""Compare runs: the settings that differ, beside losses and the figures of their evaluations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.document.tables import Cell, Column, Number, Table, Text, table_row
from calmctl.reporting.evaluations import Evaluation, read_evaluation, short_folders
from calmctl.reporting.values import number
from calmctl.runs.identity import differences, former_folder, read_settings, short_names
from calmctl.runs.record import METRICS_FILE, RunInfo, list_runs
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
        """Return the best of at least two runs by the column `by`; None if that is no figure or not comparable."""
        known = [row for row in self.rows if number(self.value(row, self.by)) is not None]
        is_loss = self.by in ("loss", LOSS)
        if len(known) < 2 or self.by in self.settings or (is_loss and len({row.examples for row in known}) > 1):
            return None
        return min(known, key=lambda row: self._order(row, self.by))

    def verdict(self) -> str:
        """Return a sentence that names the best run, or says why there is none; empty for fewer than two figures."""
        if (best := self.best()) is not None:
            return f"Best by {self.by}: {best.facts['run']} ({self.value(best, self.by):.4g})."
        if self.by in ("loss", LOSS) and sum(row.facts[self.by] is not None for row in self.rows) > 1:
            return f"No run is named the best by {self.by}: they were measured on different examples."
        return ""

    def ordered(self, column: str) -> Comparison:
        """Return the runs in the order of a column, the best first, those without a value last; `-column`: the worst.

        The name of a setting may be its last part, and that of a figure too.

        Raises:
            UserError: there is no such column.
        """
        name = self._named(column.removeprefix("-"))
        known = [row for row in self.rows if self.value(row, name) is not None]
        others = [row for row in self.rows if self.value(row, name) is None]
        known.sort(key=lambda row: self._order(row, name), reverse=column.startswith("-"))
        return replace(self, rows=(*known, *others), by=name if name not in self.settings else self.by)

    def _named(self, column: str) -> str:
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
        is_unfinished = any(row.facts["status"] != "complete" for row in self.rows)
        short, names = short_names(self.settings), short_folders([row.facts["run"] for row in self.rows])
        columns = [Column("run", is_text=True), *(Column(short[name], is_text=True) for name in settings)]
        columns += [Column("status", is_text=True)] if is_unfinished else []
        columns += [Column(name.replace("_", " ")) for name in facts] + [Column(name) for name in figures]
        rows: list[tuple[Cell, ...]] = []
        for row, name in zip(self.rows, names, strict=True):
            status = [Text(str(row.facts["status"]))] if is_unfinished else []
            losses = (_cell(row.facts[fact], 0 if fact == "steps" else 4) for fact in facts)
            measured = (_cell(row.figures.get(figure), 3 if "bits" in figure else 1) for figure in figures)
            chosen = (Text(shown(row.settings.get(setting))) for setting in settings)
            rows.append(table_row(Text(name), *chosen, *status, *losses, *measured))
        left_out = [*self.settings[_MAX_SETTINGS:], *self.figures[_MAX_FIGURES:]]
        caption = f"{len(left_out)} more columns in --csv and --json: {', '.join(left_out[:5])}" if left_out else ""
        return Table("Runs", tuple(columns), tuple(rows), caption)

    def overview(self) -> tuple[list[str], list[tuple[object, ...]]]:
        """Return the runs as columns and rows of one line each, for a list of runs of any kind."""
        short = short_names(self.settings)
        rows = []
        for row in self.rows:
            facts, figures = row.facts, [f"{name} {figure:.4g}" for name, figure in row.figures.items()]
            losses = [None if facts[name] is None else f"{facts[name]:.4g}" for name in ("loss", LOSS)]
            settings = [f"{short[name]}={shown(row.settings[name])}" for name in self.settings if name in row.settings]
            took = human_seconds(facts["seconds"])
            cells = (facts["run"], facts["kind"], facts["status"], facts["started"], took, *losses)
            rows.append((*cells, _first(figures), _first(settings)))
        return ["run", "kind", "status", "started", "took", "loss", "validation", "figures", "settings"], rows

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


def compare(runs: Sequence[RunInfo], sort: str = "", joined: bool = True) -> Comparison:
    """Compare runs, with the evaluations in their folders and those among `runs` that are of a model among `runs`.

    Files that are damaged give no figures.

    Args:
        joined: evaluations of a model among `runs` have no row of their own.

    Raises:
        UserError: see `Comparison.ordered`.
    """
    evaluations = {run.path.resolve(): found for run in runs if (found := _evaluation(run)) is not None}
    measured = {run.path.resolve(): _evaluations_in(run) for run in runs}
    places = set()
    for path, evaluation in evaluations.items():
        if (model := _model_of(evaluation)) in measured and model != path:
            measured[model][path] = evaluation
            places.add(path)
        if path not in places or not joined:
            measured[path] = {path: evaluation}
    alone = [run for run in runs if not joined or run.path.resolve() not in places]
    rows = tuple(_row(run, _figures(measured[run.path.resolve()])) for run in alone)
    compared = Comparison(rows, tuple(_differing(alone)))
    return compared.ordered(sort) if sort else compared


def shown(value: Any) -> str:
    """Return the value of a setting as it is typed."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(run: RunInfo, figures: Mapping[str, float]) -> Row:
    settings = read_settings(run.path) or {}
    facts: dict[str, Any] = {**dict.fromkeys(FACTS), "run": str(run.path), "kind": run.kind, "status": run.status}
    if run.kind in ("train", "compose", "baseline"):
        try:
            last: Mapping[str, Any] = next((row for row in reversed(run.log()) if row.get("loss") is not None), {})
            facts |= {"steps": last.get("step"), "loss": last.get("loss"), LOSS: run.validation_loss()}
        except UserError:
            facts["status"] = "damaged"
    facts |= {"seconds": number(run.facts.get("seconds")), "started": run.facts.get("started")}
    return Row(facts, settings, figures, _examples(run, settings))


def _examples(run: RunInfo, settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what decides which tokens a validation loss is the mean of."""
    inputs = run.facts.get("inputs") or {}
    model = [settings.get(name) for name in ("anchor", "tokenizer", "base")]
    if inputs.get("validation"):
        return (inputs["validation"], *model)
    share = [settings.get(f"train.{name}") for name in ("validation_share", "validation_limit")]
    return (inputs.get("data"), settings.get("seed"), *share, *model)


def _differing(runs: Sequence[RunInfo]) -> Iterator[str]:
    """Yield the settings in which runs of one kind differ, where both have them."""
    first: dict[str, tuple[RunInfo, Mapping[str, Any]]] = {}
    found = dict[str, None]()
    for run in runs:
        settings = read_settings(run.path) or {}
        one, ours = first.setdefault(run.kind, (run, settings))
        pairs = differences(ours, settings, (), former_folder(one), former_folder(run))
        found |= dict.fromkeys(name for name in pairs if name in ours and name in settings)
    yield from found


def _evaluation(run: RunInfo) -> Evaluation | None:
    """Return what an evaluation measured; None for other runs, before it has ended, and if it is damaged."""
    if run.kind not in ("eval", "score") or not (run.path / METRICS_FILE).exists():
        return None
    try:
        return read_evaluation(Path(), str(run.path))
    except UserError:
        return None


def _evaluations_in(run: RunInfo) -> dict[Path, Evaluation]:
    """Return the evaluations below the folder of a training."""
    below = list_runs(run.path) if run.kind in ("train", "compose", "baseline") else []
    return {each.path.resolve(): found for each in below if (found := _evaluation(each)) is not None}


def _model_of(evaluation: Evaluation) -> Path | None:
    """Return the folder of the run whose model was evaluated, if it is named by its path."""
    if not evaluation.model:
        return None
    path = Path(evaluation.model).resolve()
    return path.parent if path.name == "model" else path


def _figures(evaluations: Mapping[Path, Evaluation]) -> dict[str, float]:
    """Return `task.metric` -> figure; of several evaluations of a task, `folder.metric`."""
    tasks = [found.task for found in evaluations.values()]
    names = {path: found.task if tasks.count(found.task) == 1 else path.name for path, found in evaluations.items()}
    return {
        f"{names[path]}.{metric}": figure
        for path, found in evaluations.items()
        for metric, figure in found.metrics.items()
    }


def _cell(value: Any, digits: int) -> Cell:
    known = number(value)
    return Text("–") if known is None else Number(known, digits=digits)


def _first(texts: Sequence[str]) -> str | None:
    """Return the first texts on one line; None if there are none."""
    more = f" +{len(texts) - _MAX_LISTED}" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more or None


def _csv_cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
