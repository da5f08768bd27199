"""Training runs of a reproduction: what each took, where it ended, and its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.reporting.checked import number
from calmctl.reporting.provenance import duration, gibibytes
from calmctl.reporting.tables import NOT_RUN, Column, Number, Table, Text, table_row
from calmctl.run_info import read_run


@dataclass(frozen=True)
class Training:
    """A training run and its log; `log` is empty for one without training, `facts` for one that was not run.

    Attributes:
        name: the run's folder, relative to that of the reproduction.
        system: key of the system whose colour it has.
    """

    name: str
    label: str
    system: str
    facts: Mapping[str, Any]
    log: tuple[Mapping[str, Any], ...]

    @property
    def was_run(self) -> bool:
        """Return whether there is such a run."""
        return bool(self.facts)

    def series(self, field: str) -> tuple[list[float], list[float]]:
        """Return steps and values of a field of the log, rows without the field left out."""
        rows = [row for row in self.log if number(row.get(field)) is not None and "step" in row]
        return [float(row["step"]) for row in rows], [float(row[field]) for row in rows]


def read_training(folder: Path, name: str, label: str, system: str) -> Training:
    """Read the run `name` below a folder.

    Raises:
        UserError: it is no run, or its files are damaged.
    """
    run = read_run(folder / name)
    return Training(name, label, system, run.facts, tuple(run.log()))


def training_table(trainings: Sequence[Training]) -> Table:
    """Return what each training run took and where it ended."""
    columns = [Column("run", is_text=True)]
    columns += [Column(label) for label in ("steps", "last loss", "last exact match", "trained parameters")]
    columns += [Column("time"), Column("peak memory")]
    caption = "Exact match: running, teacher-forced, on training batches, in percent."
    return Table("Training runs", tuple(columns), tuple(map(_training_row, trainings)), caption)


def _training_row(training: Training) -> tuple[Text | Number, ...]:
    if not training.was_run:
        return (Text(training.label), *(Text(NOT_RUN) for _ in range(6)))
    steps, losses = training.series("loss")
    exact = training.series("exact_match")[1]
    facts = training.facts
    return table_row(
        Text(training.label, href=training.name),
        Text(f"{steps[-1]:,.0f}" if steps else NOT_RUN),
        Number(losses[-1], digits=4) if losses else Text("–"),
        Number(100 * exact[-1]) if exact else Text("–"),
        Text(_count(facts.get("trainable_parameters"))),
        Text(duration(facts.get("seconds"))),
        Text(gibibytes(facts.get("peak_memory_bytes"))),
    )


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"
