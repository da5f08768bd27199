"""Pool reproductions of one experiment that differ in their seed; every folder counts as one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from calmctl.errors import UserError
from calmctl.escaping import md_text
from calmctl.reporting.document.tables import Table, to_markdown
from calmctl.reporting.evaluations import Evaluation, not_comparable
from calmctl.reporting.headline import headline
from calmctl.reporting.measures import paper_figure
from calmctl.reporting.result_tables import grouped_table, leading_tables, systems_tables
from calmctl.reporting.results import Results, System, SystemRun
from calmctl.reporting.results_file import load_results
from calmctl.reporting.values import Spread
from calmctl.runs.identity import differences, former_folder, read_settings, shown
from calmctl.runs.record import CONFIG_FILE
from data_builders.files import write_text
from data_builders.values import write_json

# Names of settings that may differ in results of version 0.1.0, which have no `may_differ`.
_MAY_DIFFER = ("seed", "jobs", "threads")


def pool(folders: Sequence[Path]) -> Results:
    """Read several reproduce folders and return pooled results with one run per folder: the mean of its runs.

    Raises:
        UserError: a folder was not written by `calmctl reproduce`; experiments, presets or settings differ; or a seed
            occurs twice.
    """
    results = [load_results(Path(folder)) for folder in folders]
    _require_one("experiments", (found.layout.key for found in results))
    _require_one("presets", (found.preset for found in results))
    _require_one_a_seed(results)
    _require_comparable(results)
    keys = dict.fromkeys(system.key for found in results for system in found.systems)
    return replace(results[0], seed=None, systems=tuple(_pooled(results, key) for key in keys))


def _require_one(what: str, names: Iterable[str]) -> None:
    """Raise UserError unless all names are equal; `what` says what is named, such as "presets"."""
    if len(different := sorted(set(names))) > 1:
        raise UserError(
            f"the folders are of different {what} ({', '.join(different)}); average seeds of one preset only"
        )


def _require_one_a_seed(results: Sequence[Results]) -> None:
    """Raise UserError if two folders have the same seed, or differ in settings other than the seed and `may_differ`.

    Folders may differ in their tasks and comparisons: each figure is averaged over the folders that have it.
    """
    first: dict[int | None, Results] = {}
    for each in results:
        if each.seed in first:
            raise UserError(
                f"{first[each.seed].folder} and {each.folder} are both of seed {each.seed}; name one folder a seed"
            )
        first[each.seed] = each
    pairs = [(one, other, "") for one, other in combinations(first.values(), 2)]
    # Earlier versions wrote ablations as a run of their own, and folders may differ in which ablations they have.
    runs = [each for each in first.values() if (each.folder / "ablations" / CONFIG_FILE).exists()]
    pairs += [(one, other, "ablations") for one, other in combinations(runs, 2)]
    for one, other, place in pairs:
        ours, theirs = _settings(one.folder / place), _settings(other.folder / place)
        before = [key for key in ours if key.rpartition(".")[2] in _MAY_DIFFER or key.startswith(f"{place}.")]
        left_out = {*one.may_differ, *other.may_differ, *before}
        if found := differences(ours, theirs, left_out, _started_in(one), _started_in(other)):
            raise UserError(
                f"{one.folder} and {other.folder} differ in more than their seed ({shown(found)}); average seeds of "
                "one configuration only"
            )


def _started_in(found: Results) -> Path:
    """Return the folder that paths in settings are relative to; published results have no run record."""
    return former_folder(found.run) if found.run is not None else found.folder


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_settings(folder)
    if settings is None:
        raise UserError(
            f"{folder}/{CONFIG_FILE}: missing or damaged, so it cannot be said whether the folders differ in their "
            "seed only; restore it, or leave the folder out"
        )
    return settings


def _require_comparable(results: Sequence[Results]) -> None:
    """Raise UserError if evaluations are not comparable across folders; each folder's own held-out data may differ."""
    found: dict[str, list[Evaluation]] = {}
    for each in results:
        for name, evaluations in each.comparable_evaluations().items():
            found.setdefault(name, []).extend(one for one in evaluations if not each.is_own(one))
    for sentence in not_comparable(found).values():
        raise UserError(f"{sentence.removesuffix('.')}; average seeds that were asked the same")


def _pooled(results: Sequence[Results], key: str) -> System:
    found = [(each, system) for each in results if (system := each.system(key)) is not None]
    runs = tuple(_as_one(each.seed, system) for each, system in found)
    missing = f" ({len(runs)} of {len(results)} seeds)" if len(runs) < len(results) else ""
    first = found[0][1]
    return System(key, f"{first.label}{missing}", first.group, runs, first.value)


def _as_one(seed: int | None, system: System) -> SystemRun:
    """Merge a system's runs into one; each figure is the mean over the runs that have it."""
    first = system.runs[0]
    tasks = dict.fromkeys(task for run in system.runs for task in run.evaluations)
    return replace(
        first,
        seed=seed,
        is_here=False,  # a mean has no folder to link to
        metrics=_means_by_task(system.runs),
        evaluations={
            task: _mean([r.evaluations[task] for r in system.runs if task in r.evaluations]) for task in tasks
        },
        cost=None,
    )


def _means_by_task(runs: Sequence[SystemRun]) -> dict[str, dict[str, float]]:
    tasks = dict.fromkeys(task for run in runs for task in run.metrics)
    return {task: _means(run.metrics[task] for run in runs if task in run.metrics) for task in tasks}


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    dimensions = dict.fromkeys(name for found in evaluations for name in found.breakdowns)
    breakdowns = {
        name: _means_by_group([found.breakdowns.get(name, {}) for found in evaluations]) for name in dimensions
    }
    metrics = _means(found.metrics for found in evaluations)
    return replace(evaluations[0], folder="", metrics=metrics, breakdowns=breakdowns)


def _means_by_group(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    groups = dict.fromkeys(group for each in found for group in each)
    return {group: _means(each[group] for each in found if group in each) for group in groups}


def _means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: fmean(found) for name, found in values.items()}


def pooled_tables(pooled: Results) -> list[Table]:
    """Return the tables of pooled results."""
    grouped = (grouped_table(pooled, each) for each in pooled.layout.grouped)
    return [*leading_tables(pooled), *(table for table in grouped if table), *systems_tables(pooled)]


def pooled_figures(pooled: Results) -> dict[str, Any]:
    """Return the figures over seeds as JSON: mean, std, values, and the paper's figure if there is one."""
    measures = {(measure.task, measure.metric): measure for measure in pooled.layout.measures if measure.paper}
    systems: dict[str, Any] = {}
    for system in pooled.systems:
        figures: dict[str, dict[str, Any]] = {}
        for task, metrics in _means_by_task(system.runs).items():
            for metric in metrics:
                values = tuple(run.metrics[task][metric] for run in system.runs if metric in run.metrics.get(task, {}))
                spread = Spread(values)
                told = {"mean": spread.mean, "std": spread.std, "values": list(values)}
                if (task, metric) in measures:
                    told["paper"] = paper_figure(system.key, measures[task, metric])
                figures.setdefault(task, {})[metric] = told
        seeds = [run.seed for run in system.runs]
        systems[system.key] = {"label": system.label, "group": system.group, "seeds": seeds, "metrics": figures}
    section, sentences = pooled.layout.key, list(headline(pooled))
    return {"section": section, "preset": pooled.preset, "headline": sentences, "systems": systems}


def write_pooled(pooled: Results, folder: Path) -> list[Path]:
    """Write `seeds.md` and `seeds.json` into a folder and return their paths."""
    paths = [folder / "seeds.md", folder / "seeds.json"]
    sentences = "\n\n".join(map(md_text, headline(pooled)))
    write_text(paths[0], "\n".join([f"{sentences}\n", *map(to_markdown, pooled_tables(pooled))]))
    write_json(paths[1], pooled_figures(pooled))
    return paths
