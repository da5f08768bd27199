"""The training runs of a reproduction: their logs, and a table of final losses, time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.reporting.document.tables import NOT_RUN, Column, Number, Table, Text, table_row
from calmctl.reporting.values import number
from calmctl.runs.record import read_run
from calmctl.units import human_bytes, human_seconds

_ENDS = {"loss": "last loss", "validation_loss": "last held-out loss", "exact_match": "last exact match"}
"""Field of the log -> label of its last value."""
_LEAST = 1e-3


@dataclass(frozen=True)
class Training:
    """A training run and its log; `log` is empty for a run without steps.

    Attributes:
        name: the run's folder, relative to the reproduction's.
        system: key of the system, for its colour.
    """

    name: str
    label: str
    system: str
    facts: Mapping[str, Any]
    log: tuple[Mapping[str, Any], ...]

    def series(self, field: str) -> tuple[list[float], list[float]]:
        """Return steps and values of a field of the log; rows without the field are skipped."""
        rows = [row for row in self.log if number(row.get(field)) is not None and number(row.get("step")) is not None]
        return [float(row["step"]) for row in rows], [float(row[field]) for row in rows]


def read_training(folder: Path, name: str, label: str, system: str) -> Training:
    """Read the run `name` in a folder.

    Raises:
        UserError: it is no run, or its files are damaged.
    """
    run = read_run(folder / name)
    return Training(name, label, system, run.facts, tuple(run.log()))


def training_table(trainings: Sequence[Training]) -> Table:
    """Return a table of the steps, final losses, time and memory of each training run."""
    # Leave out columns without values: exact match stays at zero on ordinary text, not all trainings are validated.
    fields = [field for field in _ENDS if any(max(t.series(field)[1], default=0.0) >= _LEAST for t in trainings)]
    columns = [Column("run", is_text=True), Column("steps"), *(Column(_ENDS[field]) for field in fields)]
    columns += [Column("trained parameters"), Column("time"), Column("peak memory")]
    rows = tuple(_training_row(training, fields) for training in trainings)
    caption = (
        "Exact match: running, teacher-forced, on training batches, in percent." if "exact_match" in fields else ""
    )
    return Table("Training runs", tuple(columns), rows, caption)


def _training_row(training: Training, fields: Sequence[str]) -> tuple[Text | Number, ...]:
    steps, facts = training.series("loss")[0], training.facts
    return table_row(
        Text(training.label, href=training.name),
        Text(f"{steps[-1]:,.0f}" if steps else NOT_RUN),
        *(_end(field, training.series(field)[1]) for field in fields),
        Text(_count(facts.get("trainable_parameters"))),
        Text(human_seconds(facts.get("seconds")) or "–"),
        Text(human_bytes(facts.get("peak_memory_bytes")) or "–"),
    )


def _end(field: str, values: Sequence[float]) -> Text | Number:
    if not values:
        return Text("–")
    return Number(100 * values[-1]) if field == "exact_match" else Number(values[-1], digits=4)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"
