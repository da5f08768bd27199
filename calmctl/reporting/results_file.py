"""Read `results.json` of a `calmctl reproduce` folder, and folders of earlier versions without this file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.costs import COST_FIELDS
from calmctl.reporting.data_facts import MANIFEST
from calmctl.reporting.evaluations import read_evaluation
from calmctl.reporting.kv_tables import is_before_results, results_before
from calmctl.reporting.layouts import LAYOUTS
from calmctl.reporting.results import RESULTS_FILE, Results, System, SystemRun
from calmctl.reporting.systems_table import GROUPS, is_known
from calmctl.reporting.values import mapping, number, numbers
from calmctl.runs.record import METRICS_FILE, RUN_FILE, read_run
from data_builders.values import read_json


def is_reproduction(folder: Path) -> bool:
    """Return whether a folder has the results of `calmctl reproduce`."""
    return (folder / RESULTS_FILE).exists() or is_before_results(folder)


def load_results(folder: Path) -> Results:
    """Read a `calmctl reproduce` folder.

    Published results have no run record; runs and evaluations may then be missing.

    Raises:
        UserError: `folder` has no results of `calmctl reproduce`, or one of its files is missing or damaged.
    """
    folder, path = Path(folder), Path(folder) / RESULTS_FILE
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one written by `calmctl reproduce`")
    run = read_run(folder) if (folder / RUN_FILE).exists() else None
    if not is_reproduction(folder):
        found = f"it is a run of kind {run.kind!r}, status {run.status!r}" if run else f"it has no {RUN_FILE}"
        raise UserError(
            f"{folder} has no {RESULTS_FILE} ({found}); expected a folder of `calmctl reproduce` that has come"
            " as far as its results"
        )
    content = mapping(read_json(path), path) if path.exists() else results_before(folder)
    if content.get("section") not in LAYOUTS:
        raise UserError(f"{path}: section {content.get('section')!r} is not one of {', '.join(LAYOUTS)}")
    systems = content.get("systems")
    if not isinstance(systems, list) or not systems:
        raise UserError(f"{path}: it names no systems; delete it and run again")
    manifest = folder / MANIFEST
    seed = content.get("seed")
    return Results(
        folder=folder,
        layout=LAYOUTS[content["section"]],
        preset=str(content.get("preset") or "not recorded"),
        seed=seed if isinstance(seed, int) else None,
        may_differ=tuple(str(path) for path in content.get("may_differ") or ()),
        systems=tuple(_system(system, folder, path, must_exist=run is not None) for system in systems),
        values=mapping(content.get("values") or {}, path),
        deviations=tuple(str(text) for text in content.get("deviations") or ()),
        git_commit=content.get("git_commit"),
        hardware=mapping(content.get("hardware") or {}, path),
        seconds=numbers(content.get("seconds")),
        manifest=mapping(read_json(manifest), manifest) if manifest.exists() else None,
        run=run,
    )


def _system(value: Any, folder: Path, path: Path, must_exist: bool) -> System:
    try:
        runs = tuple(_run(run, folder, path, must_exist) for run in value["runs"])
        varied = number(value.get("value"))
        system = System(str(value["key"]), str(value["label"]), str(value["group"]), runs, varied)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: damaged (a system or a run of one: {what}); delete it and run again") from error
    if not is_known(system.key):
        raise UserError(f"{path}: system {system.key!r} is not known here; was it made by a later version of calmctl?")
    if system.group not in GROUPS or not runs:
        problem = f"group {system.group!r} is not one of {', '.join(GROUPS)}" if runs else "it has no runs"
        raise UserError(f"{path}: damaged (system {system.key}: {problem}); delete it and run again")
    return system


def _run(value: Mapping[str, Any], folder: Path, path: Path, must_exist: bool) -> SystemRun:
    trainable = value["trainable_parameters"]
    evaluations = {
        task: relative
        for task, relative in value["evaluations"].items()
        if must_exist or (folder / relative / METRICS_FILE).exists()
    }
    return SystemRun(
        seed=value["seed"],
        run=str(value["run"]),
        is_trained=bool(value["is_trained"]),
        is_here=bool(value["is_trained"]) and (must_exist or (folder / str(value["run"]) / RUN_FILE).exists()),
        others=tuple(map(str, value.get("others") or ())),
        trainable_parameters=trainable if isinstance(trainable, int) else None,
        metrics={task: numbers(metrics) for task, metrics in mapping(value["metrics"], path).items()},
        evaluations={task: read_evaluation(folder, relative) for task, relative in evaluations.items()},
        cost=None if value["cost"] is None else {name: value["cost"][name] for name in COST_FIELDS},
    )
