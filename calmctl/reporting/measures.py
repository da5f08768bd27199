"""What the reports of the experiments show: measures, their groups, and the paper's figures of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from calmctl.reporting.paper import PaperTable, paper_table
from calmctl.reporting.systems_table import CALM, M_A, M_A2, M_B, SKYLINE

HEADLINE_MODELS = (M_A, M_A2, M_B, CALM, SKYLINE)
"""Keys of the models of the paper's tables 1 to 4."""


@dataclass(frozen=True)
class Measure:
    """One figure of a model on a task.

    Attributes:
        task, metric: where it stands in the files.
        short: its name below a heading that names the benchmark.
        paper: name of the metric in the paper's tables, empty where the paper has none.
        same_records: the paper scored the same records, so the difference is shown.
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
        """Return the name of the figure with that of its benchmark."""
        return f"{self.benchmark} {self.short}".strip()

    def gain(self, ours: float, theirs: float) -> float:
        """Return how much better one figure is than another: positive is better."""
        return theirs - ours if self.is_lower_better else ours - theirs


@dataclass(frozen=True)
class Grouped:
    """A measure by group of records (by language): a table of the paper, and perhaps a plot of gains.

    Groups stand in the order of m_B's own figures.

    Attributes:
        paper_table: the table with the paper's figures, and `codes` the names that its groups have there.
        is_plotted: whether gains over the anchor are drawn.
    """

    measure: Measure
    title: str
    column: str = "language"
    paper_table: str = ""
    codes: Mapping[str, str] = field(default_factory=dict)
    is_plotted: bool = False
    note: str = ""


@dataclass(frozen=True)
class Breakdown:
    """Measures by a property that the records were made with (the number of operands): a table, and perhaps a plot.

    Attributes:
        dimension: its name in the files.
        labels: group -> its name, in their order; groups that it does not name stand by number.
        plot: `lines` over numbers, `bars` side by side, or none.
        of: the systems in the table and the plot are those of these groups.
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
        parts: last part of a prediction's id -> what is asked there and the metric that says whether it is right;
            predictions that differ in that part alone are asked of one record. Empty: a record is one prediction.
        only: field of a prediction and the value that it must have, where it has the field.
    """

    count: int
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    only: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class ReportLayout:
    """What the report of one experiment shows.

    Attributes:
        panels: tables over all systems: a title and the measures side by side.
        models_table: title of a table of the headline models alone; empty: none.
        primary: the measures whose figures the first sentences quote.
        drawn: the measures that are drawn for every system; empty: the primary ones.
        sought: the measures by which composition should give more; empty: all.
        kept: measures of what m_B could do before.
        varied: the measure that is drawn for variants of CALM by a number.
        paper_above: name in the paper's table 5 of the number of languages in which its composition was above m_B.
        samples: task -> which predictions are shown.
        note: what a reader has to know of the paper's figures.
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
    varied: Measure | None = None
    models_table: str = ""
    paper_above: str = ""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Return all measures over whole tasks."""
        return tuple(measure for _, measures in self.panels for measure in measures)


def paper_figure(system: str, measure: Measure) -> float | None:
    """Return the paper's figure of a system over a whole task, from the first of its tables that has it."""
    return next((found for table in _tables() if (found := table.figure(system, measure.paper)) is not None), None)


def paper_source(measures: Sequence[Measure]) -> str:
    """Return which tables of the paper have figures of these measures; empty where none has."""
    names = {measure.paper for measure in measures if measure.paper}
    sources = [table.source for table in _tables() if any(names & row.keys() for row in table.systems.values())]
    return " and ".join([*sources[:1], *(source.rpartition(" ")[2] for source in sources[1:])])


def _tables() -> list[PaperTable]:
    return [paper_table(name) for name in ("table1", "table4", "table5")]
