"""The cost table: measured FLOPs, time, memory and disk of trainings (the paper's appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.document.tables import Column, Number, Table, Text, table_row
from calmctl.reporting.values import number
from calmctl.runs.record import RunInfo, read_run
from calmctl.units import MIB

_COLUMNS = (
    Column("run", is_text=True),
    Column("method", is_text=True),
    Column("trainable parameters"),
    Column("MFLOPs per token"),
    Column("ms per step"),
    Column("tokens/s"),
    Column("peak memory, MiB"),
    Column("on disk, MiB"),
    Column("took, s"),
)


COST_FIELDS = (
    "method",
    "trainable_parameters",
    "flops_per_token",
    "seconds_per_step",
    "tokens_per_second",
    "peak_memory_bytes",
    "model_bytes",
    "seconds",
)
"""The keys of a row of `cost_rows`, beside `run`."""


def is_training(folder: Path) -> bool:
    """Return whether a folder is a complete training run."""
    try:
        return "cost" in read_run(folder).facts
    except UserError:
        return False


def cost_rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the cost of each training: `cost` of its record, with method, peak memory and time.

    Raises:
        UserError: a folder is no run, or no complete training.
    """
    rows = []
    for folder in folders:
        run = read_run(folder)
        if "cost" not in run.facts:
            raise UserError(f"{folder} is no complete training (kind {run.kind}, {run.status}); name trainings only")
        facts = run.facts
        memory = facts.get("peak_gpu_memory_bytes") or facts.get("peak_memory_bytes")
        seen = {"run": str(folder), "method": _method(run), "peak_memory_bytes": memory, "seconds": facts["seconds"]}
        rows.append({**seen, **facts["cost"]})
    return rows


def cost_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table of rows from `cost_rows`; a row may also have a `label` for its folder's name and an `href`."""

    def scaled(value: Any, by: float, digits: int) -> Number:
        known = number(value)
        return Number(None if known is None else known / by, digits=digits)

    cells = tuple(
        table_row(
            Text(row.get("label") or Path(row["run"]).name, href=row.get("href", "")),
            Text(str(row["method"])),
            Text(f"{number(row['trainable_parameters']) or 0:,.0f}"),
            scaled(row["flops_per_token"], 1e6, 2),
            scaled(row["seconds_per_step"], 1e-3, 1),
            scaled(row["tokens_per_second"], 1, 0),
            scaled(row["peak_memory_bytes"], MIB, 0),
            scaled(row["model_bytes"], MIB, 2),
            scaled(row["seconds"], 1, 1),
        )
        for row in rows
    )
    caption = (
        "FLOPs: matrix products and attention of one micro-batch, forward and backward, without the optimizer. Steps"
        " and tokens/s: medians over the log. Peak memory: of the GPU where there is one, else of the whole process."
    )
    return Table("Cost of training", _COLUMNS, cells, caption)


def _method(run: RunInfo) -> str:
    """Return the baseline's method, or for other trainings the kind of run."""
    return str(run.facts.get("method") or run.kind)
