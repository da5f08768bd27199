"""Table 5 on the key-value task: what `calmctl reproduce kv --ablations` measured, as a table and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from calmctl import files
from calmctl.errors import UserError
from calmctl.reporting.kv_results import CALM, KV_MATH, METRICS, Metric
from calmctl.reporting.plot_style import COLOURS, SIDEWAYS, WIDTH, names_on_axis, percent_axis, style, to_png
from calmctl.reporting.spread import Spread
from calmctl.reporting.tables import Column, Number, Table, Text, table_row

ABLATIONS_FOLDER = "ablations"
TABLE_5_FILE = "table5.json"
GROUPS = {
    "models": "Models",
    "baselines": "Other methods, same D_C",
    "m_A": "What m_A is",
    "D_C": "What D_C holds",
    "share": "Share of the keys in D_C",
    "connections": "Connections",
    "heads": "Attention heads",
}
"""Group of rows -> its heading, in the order of the table."""
COLOURS_OF = {
    "models": COLOURS["calm"],
    "baselines": "#D55E00",
    "m_A": COLOURS["random_aug"],
    "D_C": COLOURS["dc_subs"],
    "share": COLOURS["calm"],
    "connections": COLOURS["m_B"],
    "heads": COLOURS["dc_math"],
}
SIZED_GROUPS = {
    "models": "CALM",
    "connections": "CALM, fewer connections",
    "heads": "CALM, other heads",
    "baselines": "other methods",
}
"""Groups whose rows stand in the plot over trained parameters -> their name there."""


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
    content = files.read_json(path)
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
        Column("what is varied", is_text=True),
        Column("model", is_text=True),
        Column("trained parameters"),
        *(Column(metric.label) for metric in METRICS),
    )
    first, rows = ablations[0], []
    for group, heading in GROUPS.items():
        for number, row in enumerate(first.group(group)):
            name = Text(row.label, href=row.run if len(ablations) == 1 else "")
            figures = (_figure(_spread(ablations, row.key, metric), len(ablations)) for metric in METRICS)
            rows.append(table_row(Text("" if number else heading), name, _size(row, first.row(CALM.key)), *figures))
    caption = (
        "Exact match in percent; keys all held out. One thing differs from CALM in each row; all are trained from the"
        " same m_B for the same number of steps. In parentheses: trained parameters against CALM's."
    )
    if len(ablations) > 1:
        caption += f" Mean ± sample standard deviation over {len(ablations)} seeds."
    return Table("Table 5 on the key-value task", columns, tuple(rows), caption)


def ablation_figures(ablations: Sequence[KVAblations]) -> dict[str, Any]:
    """Return every variant's figures over seeds for machines: mean, std and the values themselves."""
    if not ablations:
        return {}
    spreads = {
        row.key: {metric.key: _spread(ablations, row.key, metric) for metric in METRICS} for row in ablations[0].rows
    }
    return {
        key: {metric: {"mean": s.mean, "std": s.std, "values": list(s.values)} for metric, s in by_metric.items()}
        for key, by_metric in spreads.items()
    }


def _spread(ablations: Sequence[KVAblations], key: str, metric: Metric) -> Spread:
    rows = (found.row(key) for found in ablations)
    return Spread(tuple(row.metrics[metric.key] for row in rows if row is not None))


def _figure(spread: Spread, seeds: int) -> Number:
    note = f"{len(spread.values)} of {seeds} seeds" if len(spread.values) < seeds else ""
    return Number(spread.mean, spread=spread.std, note=note)


def _size(row: AblationRow, calm: AblationRow | None) -> Text:
    count = row.trainable_parameters
    if count is None:
        return Text("–")
    if row.group == "models" or calm is None or not calm.trainable_parameters:
        return Text(f"{count:,}")
    return Text(f"{count:,} ({100 * (count / calm.trainable_parameters - 1):+.1f}%)")


def ablations_plot(ablations: KVAblations) -> bytes:
    """Draw held-out KV-MATH of every model as bars, grouped by what is varied."""
    rows = [row for group in reversed(GROUPS) for row in reversed(ablations.group(group))]
    with style(SIDEWAYS):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            value = row.metrics[KV_MATH.key]
            axes.barh(place, value, 0.72, color=COLOURS.get(row.key, COLOURS_OF[row.group]))
            axes.annotate(f"{value:.1f}", (value, place), (5, 0), textcoords="offset points", va="center", fontsize=9)
        names_on_axis(axes, [row.label for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("stepwise KV-MATH on held-out keys, percent")
        return to_png(figure)


def scaling_plot(ablations: KVAblations) -> bytes:
    """Draw held-out KV-MATH against the share of the keys in D_C, and against the number of trained parameters."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        points = ablations.series("share")
        shares, values = [100 * share for share, _ in points], [row.metrics[KV_MATH.key] for _, row in points]
        left.plot(shares, values, color=COLOURS["calm"], marker="o", linewidth=2)
        left.set_xscale("log")
        left.set_xticks(shares, [f"{share:g}" for share in shares])
        left.xaxis.set_minor_formatter(NullFormatter())
        left.set_xlabel("keys in D_C, percent of all")
        percent_axis(left, top=104, bottom=-4)
        for group, label in SIZED_GROUPS.items():
            rows = [row for row in ablations.group(group) if row.key not in ("m_A", "m_B") and row.trainable_parameters]
            sizes = [row.trainable_parameters or 0 for row in rows]
            right.scatter(sizes, [row.metrics[KV_MATH.key] for row in rows], color=COLOURS_OF[group], label=label, s=36)
        right.set_xscale("log")
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        right.set_xlabel("trained parameters")
        right.xaxis.set_minor_formatter(NullFormatter())
        figure.supylabel("stepwise KV-MATH, held-out keys, percent", fontsize=10)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        return to_png(figure)
