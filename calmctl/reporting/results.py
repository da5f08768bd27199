"""The results of a `calmctl reproduce` folder: its systems and figures, for tables, plots and report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from calmctl.reporting.data_facts import MANIFEST
from calmctl.reporting.evaluations import BITS, BY_LANGUAGE, Evaluation
from calmctl.reporting.kv_tables import TABLE_1_FILE
from calmctl.reporting.measures import Breakdown, Measure, ReportLayout
from calmctl.reporting.systems_table import CALM, GROUPS, M_B, shown_value
from calmctl.reporting.values import Spread, mapping
from calmctl.runs.record import METRICS_FILE, RunInfo
from data_builders.files import sha256_of

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class SystemRun:
    """One model of a system (of one seed), and its figures.

    Attributes:
        run: the run's folder, relative to the reproduction; path or hub id of a model that was not trained.
        metrics: evaluation name -> metric -> figure, from `results.json`.
        evaluations: evaluation name -> the evaluation that the figures were read from.
        is_here: whether the run's folder exists; published results come without their runs.
        cost: the cost of the training, a row of the cost table.
        others: folders of the trainings that it needed, such as that of its m_A.
    """

    seed: int | None
    run: str
    is_trained: bool
    is_here: bool
    trainable_parameters: int | None
    metrics: Mapping[str, Mapping[str, float]]
    evaluations: Mapping[str, Evaluation]
    cost: Mapping[str, Any] | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """One row of the tables; its runs differ in their seed, the variants of a group in their `value`."""

    key: str
    label: str
    group: str
    runs: tuple[SystemRun, ...]
    value: float | None = None


@dataclass(frozen=True)
class Results:
    """The content of a reproduction's `results.json`, with its evaluations and manifest.

    Attributes:
        manifest: of its data; None if there is none.
        run: the record of the reproduction; None for published results.
        values: group of systems -> the headline CALM's own value of the number that is varied.
        may_differ: settings, as `a.b.c`, that may differ between reproductions whose figures are averaged.
    """

    folder: Path
    layout: ReportLayout
    preset: str
    seed: int | None
    systems: tuple[System, ...]
    deviations: tuple[str, ...]
    git_commit: str | None
    hardware: Mapping[str, Any]
    seconds: Mapping[str, float]
    manifest: Mapping[str, Any] | None
    run: RunInfo | None
    values: Mapping[str, float | None] = field(default_factory=dict)
    may_differ: tuple[str, ...] = ()

    def system(self, key: str) -> System | None:
        """Return a system, or None if there is no such one."""
        return next((system for system in self.systems if system.key == key), None)

    def group(self, name: str) -> list[System]:
        """Return the systems of a group, in the order of the file; variants by a number in the order of their value."""
        return sorted((system for system in self.systems if system.group == name), key=lambda each: each.value or 0)

    def heading(self, group: str) -> str:
        """Return the heading of a group; for variants by a number, with the headline's own value."""
        value = self.values.get(group)
        name = self.layout.headings.get(group, GROUPS[group])
        return name if value is None else f"{name} (its own: {shown_value(group, value)})"

    def label(self, key: str) -> str:
        """Return a system's label, or its key if there is no such system."""
        system = self.system(key)
        return system.label if system else key

    def spread(self, key: str, measure: Measure) -> Spread:
        """Return a measure of a system's runs over all records of a task."""
        runs = system.runs if (system := self.system(key)) else ()
        values = (run.metrics.get(measure.task, {}).get(measure.metric) for run in runs)
        return Spread(tuple(value for value in values if value is not None))

    def group_spread(self, key: str, measure: Measure, group: str, dimension: str = BY_LANGUAGE) -> Spread:
        """Return a measure of a system's runs over one group of a task's records."""
        found = (each.breakdowns.get(dimension, {}).get(group, {}) for each in self.evaluations(measure.task, key))
        return Spread(tuple(row[measure.metric] for row in found if measure.metric in row))

    def needed_trainings(self) -> list[tuple[System, str]]:
        """Return the trainings that are no system themselves, each once, with the first system that needed it."""
        shown = {run.run for system in self.systems for run in system.runs}
        found: dict[str, System] = {}
        for system in self.systems:
            for other in system.runs[0].others:
                if other not in shown:
                    found.setdefault(other, system)
        return [(system, other) for other, system in found.items()]

    def evaluations(self, task: str, key: str | None = None) -> list[Evaluation]:
        """Return the evaluations of one name, of one system or of all."""
        runs = (run for system in self.systems if key in (None, system.key) for run in system.runs)
        return [run.evaluations[task] for run in runs if task in run.evaluations]

    def comparable_evaluations(self) -> dict[str, list[Evaluation]]:
        """Return the evaluations by name, without systems whose prompts or test data differ from the others'."""
        others = [*self.group("untrained"), *self.group("share")]  # each share of the keys has its own test set
        asked_otherwise = {id(found) for system in others for found in _evaluations(system)}
        named = self.evaluations_by_name().items()
        return {name: [each for each in found if id(each) not in asked_otherwise] for name, found in named}

    def evaluations_by_name(self) -> dict[str, list[Evaluation]]:
        """Return the evaluations of all systems by name; names start with the name of the task."""
        names = dict.fromkeys(name for s in self.systems for run in s.runs for name in run.evaluations)
        return {name: self.evaluations(name) for name in names}

    def measured(self, measures: Sequence[Measure]) -> list[Measure]:
        """Return the measures that any system has a figure for."""
        return [m for m in measures if any(self.spread(system.key, m).values for system in self.systems)]

    def groups(self, measure: Measure) -> list[str]:
        """Return a measure's languages from low to high resource.

        Order by m_B's bits per byte if measured (less noisy), else by m_B's figures; m_B's worst language first.
        """
        found = self.evaluations(measure.task)
        rows = [pair for each in found for pair in each.breakdowns.get(BY_LANGUAGE, {}).items()]
        codes = dict.fromkeys(code for code, row in rows if measure.metric in row)
        bits = Measure(measure.task, BITS, "", "", is_lower_better=True)
        order = bits if any(self.group_spread(M_B, bits, code).values for code in codes) else measure

        def quality(code: str) -> float:
            mean = self.group_spread(M_B, order, code).mean
            return float("inf") if mean is None else order.gain(mean, 0.0)

        return sorted(codes, key=quality)

    def breakdown_groups(self, breakdown: Breakdown) -> list[str]:
        """Return the groups of a breakdown, in the order of its labels; without labels, in numeric order."""
        rows = [
            each.breakdowns.get(breakdown.dimension, {}) for system in self.systems for each in _evaluations(system)
        ]
        found = dict.fromkeys(group for row in rows for group in row)
        if breakdown.labels:
            return [group for group in breakdown.labels if group in found]
        return sorted(filter(str.isdecimal, found), key=int)

    def broken_down(self, breakdown: Breakdown) -> list[System]:
        """Return the systems that the breakdown shows and that have figures for it."""
        return [
            system
            for system in self.systems
            if system.group in breakdown.of and any(breakdown.dimension in e.breakdowns for e in _evaluations(system))
        ]

    def group_size(self, key: str, breakdown: Breakdown, group: str) -> int | None:
        """Return the number of records in a group, or None if unknown."""
        found = (
            each.breakdowns.get(breakdown.dimension, {}) for each in self.evaluations(breakdown.measures[0].task, key)
        )
        return next((int(row[group]["n"]) for row in found if "n" in row.get(group, {})), None)

    def name(self, measure: Measure, code: str) -> str:
        """Return the display name of a group, or its code if it has none."""
        names = (found.names.get(code) for found in self.evaluations(measure.task))
        return next((name for name in names if name), code)

    def above(self, key: str, measure: Measure, other: str = M_B) -> tuple[int, int]:
        """Return (groups in which a system beats `other`, number of groups); (0, 0) if numbers of records differ."""
        if len({found.n for each in (key, other) for found in self.evaluations(measure.task, each)}) > 1:
            return 0, 0
        pairs = (
            (self.group_spread(key, measure, code).mean, self.group_spread(other, measure, code).mean)
            for code in self.groups(measure)
        )
        gains = [measure.gain(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        return sum(gain > 0 for gain in gains), len(gains)

    def href(self, key: str, task: str) -> str:
        """Return the folder of a system's evaluation of a task; for several runs, their common parent folder."""
        folders = [found.folder for found in self.evaluations(task, key) if found.folder]
        return os.path.commonpath(folders) if folders else ""

    @cached_property
    def _made(self) -> set[str]:
        """Return the checksums of the data that the reproduction built."""
        entries = mapping((self.manifest or {}).get("files") or {}, self.folder / MANIFEST)
        made = {str(entry.get("sha256")) for entry in entries.values() if isinstance(entry, Mapping)}
        # The checksum of a task that reads a whole data folder is that of the manifest.
        return made | {sha256_of(path) for path in self.folder.glob("data*/manifest.json")}

    def is_own(self, found: Evaluation) -> bool:
        """Return whether an evaluation is on held-out records of the data that the reproduction built."""
        read = found.conditions.get("data_sha256")
        return not self._made.isdisjoint(map(str, read.values() if isinstance(read, Mapping) else (read,)))

    def disagreements(self) -> list[str]:
        """Return a sentence for each figure of `results.json` that differs from its evaluation's `metrics.json`."""
        return list(self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        file = RESULTS_FILE if (self.folder / RESULTS_FILE).exists() else TABLE_1_FILE
        digits = {(measure.task, measure.metric): measure.digits for measure in self.layout.measures}
        for system in self.systems:
            for run in system.runs:
                for task, evaluation in run.evaluations.items():
                    told = run.metrics.get(task, {})
                    for metric in dict.fromkeys([*told, *evaluation.metrics]):
                        places = digits.get((task, metric), 1)
                        ours, theirs = told.get(metric), evaluation.metrics.get(metric)
                        if ours is None or theirs is None or abs(ours - theirs) > 0.5 * 10**-places:
                            yield (
                                f"{system.label}, {task} {metric}: {file} says {_shown(ours, places)},"
                                f" {evaluation.folder}/{METRICS_FILE} says {_shown(theirs, places)}"
                            )


def _evaluations(system: System) -> list[Evaluation]:
    return [found for run in system.runs for found in run.evaluations.values()]


def size_difference(results: Results, system: System) -> float | None:
    """Return by how many percent a system has more trained parameters than CALM; None if that does not apply."""
    calm, ours = results.system(CALM), system.runs[0].trainable_parameters
    theirs = calm.runs[0].trainable_parameters if calm else None
    if system.group in ("models", "skyline", "untrained") or not ours or not theirs:
        return None
    return 100 * (ours / theirs - 1)


def _shown(value: float | None, digits: int) -> str:
    return "nothing" if value is None else f"{value:.{digits}f}"
