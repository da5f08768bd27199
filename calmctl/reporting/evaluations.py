"""Read and check the `metrics.json` of evaluations: figures, breakdowns, and the conditions for comparing them."""

from __future__ import annotations

import json
import os
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
BY_SET = "by_set"
NOT_COMPARED = frozenset({"isolation", "stops_out_of_reach", "read_in"})
"""Protocol entries that do not affect comparability: every isolation gives the same verdicts, the tokenizer is part of
the model, and batching does not change answers."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one model on one task.

    Attributes:
        folder: relative to the folder it was read from; empty for the mean of several evaluations.
        n: number of records.
        breakdowns: dimension (`by_language`) -> group -> metric -> figure; `n` is the number of records.
        names: group -> display name, if it has one.
        conditions: everything but the model that figures depend on; equal for comparable evaluations.
        data: source, checksum and limit of the records.
        model: source of the model, or the file with its completions.
        speed: generated tokens per second.
        peak_memory_bytes: of the process that ran the model, if recorded.
        parameters: of the model, if recorded.
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
    """Return whether a folder is a run of `calmctl eval` or `calmctl score`."""
    try:
        return (folder / RUN_FILE).exists() and read_run(folder).kind in ("eval", "score")
    except UserError:
        return False


def read_evaluation(root: Path, folder: str) -> Evaluation:
    """Read the evaluation `folder` below `root`.

    Raises:
        UserError: `metrics.json` is missing or damaged.
    """
    path = root / folder / METRICS_FILE
    content = mapping(read_json(path), path)
    metrics = numbers(mapping(content.get("metrics"), path))
    if not isinstance(content.get("task"), str) or not metrics:
        raise UserError(f"{path}: it names no task and figures; evaluate again")
    breakdown = mapping(content.get("breakdown") or {}, path)
    named = {
        str(code): mapping(row, path)
        for dimension in (BY_LANGUAGE, BY_SET)
        for code, row in mapping(breakdown.get(dimension) or {}, path).items()
    }
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
        names={code: str(row.get("name") or code) for code, row in named.items()},
        conditions={
            "task_version": content.get("task_version"),
            "n": content.get("n"),
            "data_sha256": data.get("sha256"),  # overridden by a protocol with checksums of the files actually read
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
    """Return the figures by group; merges bits per byte, stored separately in the file, into those by language."""
    found = {
        name: {str(group): numbers(row) for group, row in mapping(rows or {}, path).items()}
        for name, rows in breakdown.items()
        if name.startswith("by_")
    }
    for group, bits in numbers(breakdown.get(BITS)).items():
        found.setdefault(BY_LANGUAGE, {}).setdefault(group, {})[BITS] = bits
    return found


def short_folders(folders: Sequence[str]) -> list[str]:
    """Return the folders relative to their common parent."""
    absolute = [os.path.abspath(folder) for folder in folders]
    start = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [os.path.relpath(path, start) for path in absolute]


def by_task(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Return the evaluations grouped by task."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.task, []).append(evaluation)
    return found


def not_comparable(evaluations: Mapping[str, Sequence[Evaluation]]) -> dict[str, str]:
    """Return name -> a sentence that lists the conditions in which its evaluations differ, if they do."""
    return {
        name: f"{name}: not comparable, as the evaluations differ in {', '.join(differing)}."
        for name, found in evaluations.items()
        if (differing := _differing(found))
    }


def _differing(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the names of the conditions that differ, with their values if those are short."""
    names = dict.fromkeys(name for found in evaluations for name in found.conditions)
    differing = []
    for name in names:
        values = dict.fromkeys(json.dumps(found.conditions.get(name), sort_keys=True) for found in evaluations)
        if len(values) > 1:
            quoted = " and ".join(values) if all(len(value) <= 24 for value in values) else ""
            differing.append(f"{name} ({quoted})" if quoted else name)
    return differing
