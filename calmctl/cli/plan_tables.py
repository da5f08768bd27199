"""Print the plan of an experiment as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calmctl.cli.output import print_table
from calmctl.escaping import visible
from calmctl.units import human_bytes, human_seconds


def print_experiment_plan(plan: Mapping[str, Any]) -> None:
    """Print models, trainings, evaluations, totals and assumptions of a plan (see `plan_experiment`)."""
    if plan["models"]:
        columns = ["model", "type", "layers", "width", "parameters", "weights", "shape"]
        print_table(columns, [_model(row) for row in plan["models"]], title="Models as they are")
    devices = tuple(plan["totals"]["hours"])
    hours = [f"on {device}" for device in devices]
    columns = ["training", "runs", "what", "parameters", "trained", "memory", "tokens", "FLOP", *hours, "disk"]
    print_table(columns, [_training(row, devices) for row in plan["trainings"]], title="Trainings, each")
    columns = ["evaluation", "models", "prompts", "tokens each", "written", "FLOP", *hours]
    print_table(columns, [_evaluation(row, devices) for row in plan["evaluations"]], title="Evaluations, of all models")
    print_table(("of all", ""), _totals(plan["totals"]), title="Totals")
    for assumption in plan["assumptions"]:
        print(visible(f"- {assumption}"))


def count(number: float) -> str:
    """Return a count as short text: 1.54B, 85.1M, 512."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:,.0f}"


def _model(row: Mapping[str, Any]) -> tuple[object, ...]:
    shown = ("source", "model_type", "layers", "width")
    values = (row[name] for name in shown)
    return (*values, count(row["parameters"]), human_bytes(row["weight_bytes"]), row["shape"])


def _training(row: Mapping[str, Any], devices: tuple[str, ...]) -> tuple[object, ...]:
    return (
        row["stage"], row["runs"], row["what"], count(row["parameters"]), count(row["trainable_parameters"]),
        human_bytes(row["memory_bytes"]), count(row["tokens"]), f"{row['flops']:.2g}",
        *(_time(row["hours"][device]) for device in devices), human_bytes(row["disk_bytes"]),
    )  # fmt: skip


def _evaluation(row: Mapping[str, Any], devices: tuple[str, ...]) -> tuple[object, ...]:
    if row["prompts"] is None:
        return (row["task"], row["models"], "not known", *[None] * (3 + len(devices)))
    return (
        row["task"], row["models"], f"{row['prompts']:,}", row["prompt_tokens"], count(row["written_tokens"]),
        f"{row['flops']:.2g}", *(_time(row["hours"][device]) for device in devices),
    )  # fmt: skip


def _totals(totals: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        ("FLOP of training", f"{totals['training_flops']:.2g}"),
        ("FLOP of evaluation", f"{totals['evaluation_flops']:.2g}"),
        *((f"on one {device}", _time(hours)) for device, hours in totals["hours"].items()),
        ("largest memory of a training", human_bytes(totals["largest_memory_bytes"])),
        ("disk, downloads included", human_bytes(totals["disk_bytes"])),
        *(("not counted", text) for text in totals["unknown"]),
    ]


def _time(hours: float) -> str | None:
    return human_seconds(3600 * hours)
