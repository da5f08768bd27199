"""Table 5 on the key-value task: what `calmctl reproduce kv --ablations` measured, as a table and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.cost_table import cost_rows, cost_table, is_training
from calmctl.reporting.kv_results import ANCHOR, AUG, CALM, KV_MATH, KV_MATH_DIRECT, METRICS, Metric
from calmctl.reporting.spread import Spread
from calmctl.reporting.tables import NOT_RUN, Cell, Column, Number, Table, Text, signed, table_row
from data_builders.values import read_json

ABLATIONS_FOLDER = "ablations"
TABLE_5_FILE = "table5.json"
VANILLA_RUN = f"{ABLATIONS_FOLDER}/vanilla"
"""The m_A of the row `vanilla_aug`, relative to the reproduce folder."""
GROUPS = {
    "models": "Models",
    "baselines": "Other methods",
    "m_A": "What m_A is",
    "D_C": "What D_C holds",
    "share": "Share of keys in D_C",
    "connections": "Connections",
    "heads": "Attention heads",
}
"""Group of rows -> its heading, in the order of the table."""
LABELS = {KV_MATH.key: "KV-MATH", KV_MATH_DIRECT.key: "KV-MATH direct"}
"""Labels of metrics that are shorter here than elsewhere: eighty columns of a terminal are few."""
SHORT = {
    "share": lambda value: f"{100 * value:g}%",
    "connections": lambda value: "every layer" if value == 1 else f"every {value:g} layers",
    "heads": lambda value: f"{value:g}",
}
"""Numeric group -> how CALM's own value is written in its heading."""


@dataclass(frozen=True)
class AblationRow:
    """One model of table 5.

    Attributes:
        value: the number that is varied in its group, if it is one.
        metrics: accuracies in percent on held-out keys.
        run, evaluation: folders relative to the reproduce folder.
    """

    key: str
    label: str
    group: str
    value: float | None
    metrics: Mapping[str, float]
    trainable_parameters: int | None
    seconds: float | None
    run: str
    evaluation: str


@dataclass(frozen=True)
class KVAblations:
    """All rows of a `table5.json`, and the values of the varied settings in the headline composition."""

    rows: tuple[AblationRow, ...]
    calm_values: Mapping[str, float | None]

    def heading(self, group: str) -> str:
        """Return the name of a group, with CALM's own value of what is varied in it."""
        value = self.calm_values.get(group)
        return GROUPS[group] if value is None else f"{GROUPS[group]} (CALM: {SHORT[group](value)})"

    def row(self, key: str) -> AblationRow | None:
        """Return the row of a key, or None where it was not measured."""
        return next((row for row in self.rows if row.key == key), None)

    def group(self, name: str) -> list[AblationRow]:
        """Return the rows of a group, by value where they have one."""
        return sorted((row for row in self.rows if row.group == name), key=lambda row: row.value or 0)

    def series(self, group: str) -> list[tuple[float, AblationRow]]:
        """Return the rows of a numeric group with their values, the headline composition among them."""
        points = [(row.value, row) for row in self.group(group) if row.value is not None]
        calm, value = self.row(CALM.key), self.calm_values.get(group)
        if calm is not None and value is not None:
            points.append((value, calm))
        return sorted(points, key=lambda point: point[0])


def load_kv_ablations(folder: Path) -> KVAblations | None:
    """Read the ablations of a reproduce folder; None where there are none.

    Raises:
        UserError: `table5.json` is damaged.
    """
    path = folder / ABLATIONS_FOLDER / TABLE_5_FILE
    if not path.exists():
        return None
    content = read_json(path)
    try:
        rows = tuple(_row(key, row) for key, row in content["rows"].items())
        return KVAblations(rows, content["calm_values"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); delete it and run again") from error


def _row(key: str, row: Mapping[str, Any]) -> AblationRow:
    return AblationRow(
        key,
        row["label"],
        row["group"],
        row["value"],
        {metric.key: row["metrics"][metric.key] for metric in METRICS},
        row["trainable_parameters"],
        row["seconds"],
        row["run"],
        row["evaluation"],
    )


def table5(*ablations: KVAblations) -> Table:
    """Return every variant's size and accuracies, grouped by what is varied; of several seeds mean and deviation."""
    columns = (
        Column("model", is_text=True),
        Column("trained params"),
        Column("against CALM"),
        *(Column(LABELS.get(metric.key, metric.label)) for metric in METRICS),
    )
    rows: list[tuple[Cell, ...]] = []
    headings, count = {}, len(ablations)
    for group in GROUPS:
        headings[len(rows)] = ablations[0].heading(group)
        for row in _rows(ablations, group):
            name = Text(row.label, href=row.run if count == 1 else "")
            figures = (_figure(ablations, row, metric) for metric in METRICS)
            rows.append(table_row(name, *_size(row, ablations[0].row(CALM.key)), *figures))
    caption = (
        "Exact match in percent, stepwise unless it says direct; keys all held out. One thing differs from CALM in each"
        " row; other methods are trained on the same D_C for as many steps, with as many parameters where they have a"
        " size. Vanilla m_A: trained on m_B's arithmetic instead of the keys' values."
    )
    if count > 1:
        caption += f" Mean ± sample standard deviation over {count} seeds."
    return Table("Table 5 on the key-value task", columns, tuple(rows), caption, headings)


def _rows(ablations: Sequence[KVAblations], group: str) -> list[AblationRow]:
    """Return the rows of a group that any of several seeds has."""
    found = {row.key: row for seed in reversed(ablations) for row in seed.group(group)}
    return sorted(found.values(), key=lambda row: row.value or 0)


def ablations_cost(ablations: KVAblations, folder: Path) -> Table:
    """Return what every training of a reproduction and of its ablations cost, of those whose runs are there."""
    labels = {row.run: row.label for row in ablations.rows}
    if (vanilla := ablations.row("vanilla_aug")) is not None:
        labels[VANILLA_RUN] = f"{vanilla.label} itself"
    trained = [(run, label) for run, label in labels.items() if is_training(folder / run)]
    return cost_table([cost_rows([folder / run])[0] | {"run": run, "label": label} for run, label in trained])


def ablation_figures(ablations: Sequence[KVAblations]) -> dict[str, Any]:
    """Return every variant's figures over seeds for machines: mean, std and the values themselves."""
    if not ablations:
        return {}
    rows = {row.key: row for seed in ablations for row in seed.rows}
    spreads = {key: {metric.key: _spread(ablations, key, metric) for metric in METRICS} for key in rows}
    return {
        key: {metric: {"mean": s.mean, "std": s.std, "values": list(s.values)} for metric, s in by_metric.items()}
        for key, by_metric in spreads.items()
    }


def _spread(ablations: Sequence[KVAblations], key: str, metric: Metric) -> Spread:
    rows = (found.row(key) for found in ablations)
    return Spread(tuple(row.metrics[metric.key] for row in rows if row is not None))


def _figure(ablations: Sequence[KVAblations], row: AblationRow, metric: Metric) -> Number:
    spread, seeds = _spread(ablations, row.key, metric), len(ablations)
    note = f"{len(spread.values)} of {seeds} seeds" if len(spread.values) < seeds else ""
    return Number(spread.mean, spread=spread.std, note=note, href=row.evaluation if seeds == 1 else "")


def _size(row: AblationRow, calm: AblationRow | None) -> tuple[Text, Text]:
    """Return the number of trained parameters, and by how many percent it differs from CALM's."""
    count = row.trainable_parameters
    if count is None:
        return Text(NOT_RUN), Text("")
    if row.key in (AUG.key, ANCHOR.key, CALM.key) or calm is None or not calm.trainable_parameters:
        return Text(f"{count:,}"), Text("")
    return Text(f"{count:,}"), Text(f"{signed(100 * (count / calm.trainable_parameters - 1))}%")
