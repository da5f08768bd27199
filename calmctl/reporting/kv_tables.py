"""The tables of the key-value report: Table 1, controls, operand counts, strata."""

from __future__ import annotations

from collections.abc import Iterable

from calmctl.reporting.document.tables import Column, Number, Table, Text, table_row
from calmctl.reporting.kv_results import (
    CALM,
    KV_MATH,
    KV_MATH_DIRECT,
    METRICS,
    STRATA,
    KVResults,
    Metric,
    Slice,
    System,
)
from calmctl.reporting.paper import paper_table

_PROTOCOL_GROUPS = {"stepwise": "Table 1, stepwise", "direct": "direct"}


def table1(results: KVResults) -> Table:
    """Return Table 1 measured beside the paper's; the direct protocol stands apart."""
    paper = paper_table("table1")
    rows = tuple(
        table_row(
            _label(results, system),
            *(_figure(results, system, metric, paper.figure(system.key, metric.key)) for metric in METRICS),
        )
        for system in results.models
    )
    caption = f"Exact match in percent; keys all held out. Paper: {paper.source}; differences in points."
    return Table("Table 1: measured beside the paper", metric_columns(), rows, caption)


def controls_table(results: KVResults) -> Table:
    """Return the composed model and its controls: other composition data, and a random m_A."""
    systems = (System(CALM.key, "CALM (D_C mix)", CALM.run), *results.controls)
    rows = tuple(
        table_row(_label(results, system), *(_figure(results, system, metric, None) for metric in METRICS))
        for system in systems
    )
    caption = "Exact match in percent; keys all held out. The paper gives no such figures for this task."
    return Table("Controls", metric_columns(), rows, caption)


def metric_columns() -> tuple[Column, ...]:
    """Return a column of names and one a metric, grouped by protocol so that the two are never mixed."""
    figures = (Column(metric.label, group=_PROTOCOL_GROUPS[metric.protocol]) for metric in METRICS)
    return (Column("model", is_text=True), *figures)


def operand_tables(results: KVResults) -> list[Table]:
    """Return one table a metric: models down, operand counts across, keys all held out."""
    counts = sorted({count for found in results.evaluations.values() for count in found.by_num_operands})
    if not counts:
        return []
    columns = (
        Column("model", is_text=True),
        *(Column(str(count), group="number of operands") for count in counts),
        Column("all"),
    )
    tables = []
    for metric in (KV_MATH, KV_MATH_DIRECT, *(m for m in METRICS if m not in (KV_MATH, KV_MATH_DIRECT))):
        rows = []
        for system in results.systems:
            found = results.evaluations.get(system.key)
            parts = [found.by_num_operands.get(count) if found else None for count in counts]
            cells = [Number(_accuracy(part, metric)) for part in [*parts, found.overall if found else None]]
            rows.append(table_row(_label(results, system), *cells))
        tables.append(Table(metric.label, columns, tuple(rows), _sizes(results, counts)))
    return tables


def _sizes(results: KVResults, counts: Iterable[int]) -> str:
    """Return how many expressions stand behind each column, if every evaluation agrees."""
    parts = []
    for count in counts:
        sizes = {
            found.by_num_operands[count].num_examples
            for found in results.evaluations.values()
            if count in found.by_num_operands
        }
        parts.append(f"{count}: {sizes.pop()}" if len(sizes) == 1 and None not in sizes else f"{count}: differs")
    return f"Percent; keys all held out; columns are numbers of operands. Expressions: {', '.join(parts)}."


def strata_table(results: KVResults, system: System) -> Table:
    """Return one model's accuracies where all keys are held in, some are, and none is."""
    found = results.evaluations.get(system.key)
    rows = []
    for stratum, label in STRATA.items():
        part = found.by_stratum.get(stratum) if found else None
        size = Text("–" if part is None or part.num_examples is None else str(part.num_examples))
        rows.append(table_row(Text(label), size, *(Number(_accuracy(part, metric)) for metric in METRICS)))
    head, *figures = metric_columns()
    columns = (Column("keys", is_text=True), Column("expressions"), *figures)
    caption = "Percent. Held in: among the keys of the composition data."
    return Table(f"{system.label}: held-in and held-out keys", columns, tuple(rows), caption)


def augs_table(results: KVResults) -> Table | None:
    """Return the composed model's accuracies by whose keys an expression has, where several m_As share them out."""
    found = results.evaluations.get(CALM.key)
    if found is None or not found.by_augs:
        return None
    rows = []
    for augs, part in found.by_augs.items():
        label = "of both m_As" if "+" in augs else f"of m_A {augs} alone"
        figures = (Number(_accuracy(part, metric)) for metric in METRICS)
        rows.append(table_row(Text(label), Text(str(part.num_examples)), *figures))
    head, *figures_columns = metric_columns()
    columns = (Column("keys", is_text=True), Column("expressions"), *figures_columns)
    return Table(f"{CALM.label}: whose keys", columns, tuple(rows), "Percent; keys all held out.")


def _label(results: KVResults, system: System) -> Text:
    found = results.evaluations.get(system.key)
    return Text(system.label, href=found.folder if found else "")


def _figure(results: KVResults, system: System, metric: Metric, paper: float | None) -> Number:
    found = results.evaluations.get(system.key)
    value = results.figure(system, metric)
    href = found.folder if found is not None and value is not None else ""
    return Number(value, paper=paper, href=href)


def _accuracy(part: Slice | None, metric: Metric) -> float | None:
    return part.accuracies.get(metric.key) if part else None
