"""Cost tables of a reproduction's systems: of training, and of generating answers."""

from __future__ import annotations

from typing import Any

from calmctl.reporting.costs import cost_rows, cost_table, is_training
from calmctl.reporting.document.tables import Column, Number, Table, Text, table_row
from calmctl.reporting.results import Results, System
from calmctl.units import MIB


def training_costs(results: Results) -> Table | None:
    """Return the training costs of each trained system's first run and of the models it needed; None if none."""
    rows: list[dict[str, Any]] = []
    needed = results.needed_trainings()
    for system in results.systems:
        run = system.runs[0]
        rows += [
            cost_rows([results.folder / other])[0] | {"label": f"{system.label}: {other}", "href": other}
            for owner, other in needed
            if owner is system and is_training(results.folder / other)
        ]
        if run.cost is not None:
            rows.append({**run.cost, "label": system.label, "href": run.run if run.is_here else ""})
    return cost_table(rows) if rows else None


def answering_costs(results: Results) -> Table | None:
    """Return speed and memory of each system in the first evaluation with generation; None if there is none."""
    task = next((name for name, found in results.evaluations_by_name().items() if any(f.speed for f in found)), None)
    rows = [_row(system, task) for system in results.systems if task and task in system.runs[0].evaluations]
    if not rows:
        return None
    columns = (
        Column("model", is_text=True),
        Column("parameters"),
        Column("to ship, MiB"),
        Column("tokens/s"),
        Column("peak memory, MiB"),
    )
    caption = (
        f"{task}, all prompts in batches, reading them included; first seed. Compare speeds only where nothing else ran"
        " on the machine. To ship: what was trained, beside the models that are there already."
    )
    return Table("Cost of answering", columns, tuple(rows), caption)


def _row(system: System, task: str) -> tuple[Text | Number, ...]:
    run = system.runs[0]
    found, ship = run.evaluations[task], run.cost["model_bytes"] if run.cost else None
    memory = found.peak_memory_bytes
    return table_row(
        Text(system.label, href=run.run if run.is_here else ""),
        Text(f"{found.parameters:,}" if found.parameters else "–"),
        Number(ship / MIB, digits=2) if ship else Text("–"),
        Number(found.speed, digits=1),
        Number(None if memory is None else memory / MIB, digits=0),
    )
