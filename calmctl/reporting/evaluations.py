"""Results of evaluations, read once and checked: figures, figures by group, and what they depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.values import mapping, number, numbers
from calmctl.runs.record import METRICS_FILE, RUN_FILE, read_run
from data_builders.values import read_json

BITS = "bits_per_byte"
BY_LANGUAGE = "by_language"
NOT_COMPARED = frozenset({"isolation", "stops_out_of_reach", "read_in"})
"""Entries of a protocol that are no difference: all isolations judge alike, a tokenizer is part of the model, and rows
are read together only as far as answers stay those of each alone."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one model on one task.

    Attributes:
        folder: relative to where it was read from; empty for one that stands for several.
        breakdowns: what records are grouped by (`by_language`) -> group -> metric -> figure, and `n` records.
        names: group -> its name for readers, where it has one.
        conditions: everything that figures depend on beside the model: two results are comparable where it is equal.
        data: where the records come from.
        model: what was evaluated: its source, or the file with its completions.
        speed: tokens that it wrote in a second.
        peak_memory_bytes, parameters: of the process that asked it, and its own, where a run says so.
    """

    task: str
    folder: str
    metrics: Mapping[str, float]
    n: int | None = None
    breakdowns: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    speed: float | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None


def is_evaluation(folder: Path) -> bool:
    """Tell whether a folder is a run that scored a task."""
    try:
        return (folder / RUN_FILE).exists() and read_run(folder).kind in ("eval", "score")
    except UserError:
        return False


def read_evaluation(root: Path, folder: str) -> Evaluation:
    """Read the evaluation `folder` below `root`.

    Raises:
        UserError: it has no `metrics.json`, or a damaged one.
    """
    path = root / folder / METRICS_FILE
    content = mapping(read_json(path), path)
    metrics = numbers(mapping(content.get("metrics"), path))
    if not isinstance(content.get("task"), str) or not metrics:
        raise UserError(f"{path}: it names no task and figures; evaluate again")
    breakdown = mapping(content.get("breakdown") or {}, path)
    by_language = mapping(breakdown.get(BY_LANGUAGE) or {}, path)
    protocol = mapping(content.get("protocol") or {}, path)
    data = mapping(content.get("data") or {}, path)
    model = mapping(content.get("model") or {}, path)
    facts = read_run(root / folder).facts if (root / folder / RUN_FILE).exists() else {}
    count = number(content.get("n"))
    return Evaluation(
        task=content["task"],
        folder=folder,
        metrics=metrics,
        n=None if count is None else int(count),
        breakdowns=_breakdowns(breakdown, path),
        names={str(code): str(mapping(row, path).get("name") or code) for code, row in by_language.items()},
        conditions={
            "task_version": content.get("task_version"),
            "n": content.get("n"),
            "data_sha256": data.get("sha256"),  # a protocol that names its files knows better: they may lie elsewhere
            **{name: value for name, value in protocol.items() if name not in NOT_COMPARED},
        },
        data=data,
        model=str(model.get("source") or model.get("predictions") or ""),
        speed=number(content.get("tokens_per_second")),
        peak_memory_bytes=_whole(facts.get("peak_gpu_memory_bytes") or facts.get("peak_memory_bytes")),
        parameters=_whole(facts.get("total_parameters")),
    )


def _whole(value: Any) -> int | None:
    return None if (known := number(value)) is None else int(known)


def _breakdowns(breakdown: Mapping[str, Any], path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of groups; bits per byte stand apart in the file, by the groups of languages."""
    found = {
        name: {str(group): numbers(row) for group, row in mapping(rows or {}, path).items()}
        for name, rows in breakdown.items()
        if name.startswith("by_")
    }
    for group, bits in numbers(breakdown.get(BITS)).items():
        found.setdefault(BY_LANGUAGE, {}).setdefault(group, {})[BITS] = bits
    return found


def by_task(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Return the evaluations of each task."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.task, []).append(evaluation)
    return found


def not_comparable(evaluations: Mapping[str, Sequence[Evaluation]]) -> dict[str, str]:
    """Say of each name whose evaluations differ in more than the model what it is that differs."""
    return {
        name: f"{name}: not comparable, as the evaluations differ in {', '.join(differing)}."
        for name, found in evaluations.items()
        if (differing := _differing(found))
    }


def _differing(evaluations: Sequence[Evaluation]) -> list[str]:
    """Name the conditions that not all evaluations have in common; short values are quoted."""
    names = dict.fromkeys(name for found in evaluations for name in found.conditions)
    differing = []
    for name in names:
        values = dict.fromkeys(json.dumps(found.conditions.get(name), sort_keys=True) for found in evaluations)
        if len(values) > 1:
            quoted = " and ".join(values) if all(len(value) <= 24 for value in values) else ""
            differing.append(f"{name} ({quoted})" if quoted else name)
    return differing
