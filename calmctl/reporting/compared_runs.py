"""Read runs to compare them: their settings, losses, and the evaluations of their models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.comparison import FACTS, LOSS, Comparison, Row
from calmctl.reporting.evaluations import Evaluation, read_evaluation
from calmctl.reporting.values import number
from calmctl.runs.identity import differences, former_folder, read_settings
from calmctl.runs.record import METRICS_FILE, RunInfo, list_runs

# Settings that decide which tokens of the examples are predicted, with what runs did that lack them.
_OF_TOKENS = {
    **dict.fromkeys(("anchor", "tokenizer", "base"), ""),
    "train.append_eos": True,
    "train.on_long_example": "fail",
    "train.on_empty_completion": "fail",
    "train.packing": False,
    "train.context": None,
}
TRAININGS = ("train", "compose", "baseline")


def compare(runs: Sequence[RunInfo], sort: str = "", is_list: bool = False) -> Comparison:
    """Compare runs, with the evaluations in their folders and those among `runs` that are of a model among `runs`.

    Files that are damaged give no figures.

    Args:
        is_list: give every run a row of its own, and look for settings that differ among runs of the same kind only;
            otherwise evaluations of a model among `runs` have none, and all trainings are of one kind.

    Raises:
        UserError: see `Comparison.ordered`.
    """
    evaluations = {run.path.resolve(): found for run in runs if (found := _evaluation(run)) is not None}
    measured = {run.path.resolve(): _evaluations_in(run) for run in runs}
    places = set()
    for path, evaluation in evaluations.items():
        if (model := _model_of(evaluation)) in measured and model != path:
            measured[model][path] = evaluation
            places.add(path)
        if path not in places or is_list:
            measured[path] = {path: evaluation}
    alone = [run for run in runs if is_list or run.path.resolve() not in places]
    rows = tuple(_row(run, _figures(measured[run.path.resolve()])) for run in alone)
    compared = Comparison(rows, tuple(_differing(alone, is_list)))
    return compared.ordered(sort) if sort else compared


def _row(run: RunInfo, figures: Mapping[str, float]) -> Row:
    settings = read_settings(run.path) or {}
    facts: dict[str, Any] = {**dict.fromkeys(FACTS), "run": str(run.path), "kind": run.kind, "status": run.status}
    if run.kind in TRAININGS:
        try:
            last: Mapping[str, Any] = next((row for row in reversed(run.log()) if row.get("loss") is not None), {})
            facts |= {"steps": last.get("step"), "loss": last.get("loss"), LOSS: run.validation_loss()}
        except UserError:
            facts["status"] = "damaged"
    facts |= {"seconds": number(run.facts.get("seconds")), "started": run.facts.get("started")}
    return Row(facts, settings, figures, _examples(run, settings))


def _examples(run: RunInfo, settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what decides which tokens a validation loss is the mean of."""
    inputs = run.facts.get("inputs") or {}
    tokens = {name: settings.get(name, default) for name, default in _OF_TOKENS.items()}
    if not tokens["train.packing"]:
        del tokens["train.context"]
    columns = sorted(f"{name}: {theirs}" for name, theirs in settings.items() if name.startswith("columns."))
    how = (*columns, *tokens.values())
    # Several files are numbered: `data 1`, `data 2`.
    data, validation = (
        [checksum for name, checksum in sorted(inputs.items()) if name.split()[0] == kind]
        for kind in ("data", "validation")
    )
    if validation:
        return (*validation, *how)
    share = [settings.get(f"train.{name}") for name in ("validation_share", "validation_limit")]
    return (*data, settings.get("seed"), *share, *how)


def _differing(runs: Sequence[RunInfo], is_list: bool) -> Iterator[str]:
    """Yield the settings in which runs of one kind differ from the first of them, where both have them."""
    first: dict[str, tuple[RunInfo, Mapping[str, Any]]] = {}
    found: set[str] = set()
    for run in runs:
        settings = read_settings(run.path) or {}
        kind = run.kind if is_list or run.kind not in TRAININGS else ""
        one, ours = first.setdefault(kind, (run, settings))
        pairs = differences(ours, settings, (), former_folder(one), former_folder(run))
        found |= {name for name in pairs if name in ours and name in settings}
    yield from dict.fromkeys(name for _, settings in first.values() for name in settings if name in found)


def _evaluation(run: RunInfo) -> Evaluation | None:
    """Return what an evaluation measured; None for other runs, before it has ended, and if it is damaged."""
    if run.kind not in ("eval", "score") or not (run.path / METRICS_FILE).exists():
        return None
    try:
        return read_evaluation(Path(), str(run.path))
    except UserError:
        return None


def _evaluations_in(run: RunInfo) -> dict[Path, Evaluation]:
    """Return the evaluations below the folder of a training."""
    below = list_runs(run.path) if run.kind in TRAININGS else []
    return {each.path.resolve(): found for each in below if (found := _evaluation(each)) is not None}


def _model_of(evaluation: Evaluation) -> Path | None:
    """Return the folder of the run whose model was evaluated, if it is named by its path."""
    if not evaluation.model:
        return None
    path = Path(evaluation.model).resolve()
    return path.parent if path.name == "model" else path


def _figures(evaluations: Mapping[Path, Evaluation]) -> dict[str, float]:
    """Return `task.metric` -> figure; of several evaluations of a task, `folder.metric`."""
    tasks = [found.task for found in evaluations.values()]
    names = {path: found.task if tasks.count(found.task) == 1 else path.name for path, found in evaluations.items()}
    return {
        f"{names[path]}.{metric}": figure
        for path, found in evaluations.items()
        for metric, figure in found.metrics.items()
    }
