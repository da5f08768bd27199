"""The types that report layouts consist of (measures, breakdowns, samples), and the paper's figures of measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from calmctl.reporting.paper import PaperTable, paper_table
from calmctl.reporting.systems_table import CALM, M_A, M_A2, M_B, SKYLINE

HEADLINE_MODELS = (M_A, M_A2, M_B, CALM, SKYLINE)
"""Keys of the models of the paper's tables 1 to 4."""


@dataclass(frozen=True)
class Measure:
    """A metric of an evaluation, as reports show it.

    Attributes:
        task, metric: its keys in `results.json`.
        benchmark: name of the benchmark for readers.
        short: name of the metric for readers.
        paper: name of the metric in the paper's tables; empty if the paper has none.
        same_records: whether the paper scored the same records, so that a difference is shown.
    """

    task: str
    metric: str
    benchmark: str
    short: str
    digits: int = 1
    is_lower_better: bool = False
    paper: str = ""
    same_records: bool = False

    @property
    def label(self) -> str:
        """Return the names of benchmark and metric."""
        return f"{self.benchmark} {self.short}".strip()

    def gain(self, ours: float, theirs: float) -> float:
        """Return by how much our figure is better than theirs; negative if it is worse."""
        return theirs - ours if self.is_lower_better else ours - theirs


@dataclass(frozen=True)
class Grouped:
    """A measure by language (or other group), ordered by m_B's figures: a table, optionally a plot of gains over m_B.

    Attributes:
        column: heading of the column with the groups.
        paper_table: name of the table with the paper's figures.
        codes: group -> its name in `paper_table`.
        is_plotted: whether gains over m_B are drawn.
    """

    measure: Measure
    title: str
    column: str = "language"
    paper_table: str = ""
    codes: Mapping[str, str] = field(default_factory=dict)
    is_plotted: bool = False
    note: str = ""


@dataclass(frozen=True)
class BySet:
    """A measure by test set, in the layout of a published table.

    Attributes:
        published: names of published tables of LLM-Adapters with the same sets; a table of ours for each.
    """

    measure: Measure
    title: str
    published: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Breakdown:
    """Measures by a property of the records (such as the number of operands): a table, and optionally a plot.

    Attributes:
        dimension: key of the property in `metrics.json`.
        labels: group -> its name, in the order to show; empty = groups are numbers, in numeric order.
        plot: `lines`, `bars` or empty (no plot).
        of: groups of systems to show.
    """

    dimension: str
    title: str
    column: str
    measures: tuple[Measure, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    plot: str = ""
    of: tuple[str, ...] = ("models", "m_A", "D_C")


@dataclass(frozen=True)
class Samples:
    """Which predictions of a task are shown.

    Attributes:
        count: number of records.
        parts: last part of a prediction's id -> (its heading, the metric that says whether it is right); predictions
            whose ids differ in the last part only belong to one record. Empty = one prediction per record.
        only: (field, value): show only predictions with this value in the field, or without the field.
    """

    count: int
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    only: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class ReportLayout:
    """What the report of one experiment shows.

    Attributes:
        panels: tables over all systems: (title, measures side by side).
        primary: measures that the headline quotes.
        samples: task -> which predictions are shown.
        note: what readers have to know about the paper's figures.
        drawn: measures in the plot of all systems; empty = the primary ones.
        sought: measures that composition should improve; empty = all.
        kept: measures of m_B's abilities, which composition should keep.
        varied: measures for the plot of variants by a number, the first that was measured.
        models_table: title of a table of the headline models only; empty = none.
        ranked: measures by which the headline lists all models and methods.
        by_set: measures by test set.
        headings: group of systems -> its heading, if it is another than everywhere.
        paper_above: name, in the paper's table 5, of the number of languages in which its composition beats m_B.
    """

    key: str
    title: str
    panels: tuple[tuple[str, tuple[Measure, ...]], ...]
    primary: tuple[Measure, ...]
    samples: Mapping[str, Samples]
    note: str
    grouped: tuple[Grouped, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    drawn: tuple[Measure, ...] = ()
    sought: tuple[Measure, ...] = ()
    kept: tuple[Measure, ...] = ()
    varied: tuple[Measure, ...] = ()
    models_table: str = ""
    ranked: tuple[Measure, ...] = ()
    by_set: tuple[BySet, ...] = ()
    headings: Mapping[str, str] = field(default_factory=dict)
    paper_above: str = ""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Return all measures of the panels."""
        return tuple(measure for _, measures in self.panels for measure in measures)


def paper_figure(system: str, measure: Measure) -> float | None:
    """Return the paper's figure of a system, from the first of its tables that has one; None if there is none."""
    return next((found for table in _tables() if (found := table.figure(system, measure.paper)) is not None), None)


def paper_source(measures: Sequence[Measure]) -> str:
    """Return the names of the paper's tables that have figures for these measures; empty if none has."""
    names = {measure.paper for measure in measures if measure.paper}
    sources = [table.source for table in _tables() if any(names & row.keys() for row in table.systems.values())]
    return " and ".join([*sources[:1], *(source.rpartition(" ")[2] for source in sources[1:])])


def _tables() -> list[PaperTable]:
    return [paper_table(name) for name in ("table1", "table4", "table5")]
