"""Find out whether a folder is a reproduction, a training or an evaluation, and whether it can be reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from calmctl.errors import UserError
from calmctl.reporting.costs import cost_rows, is_training
from calmctl.reporting.evaluations import is_evaluation, read_evaluation
from calmctl.reporting.results_file import is_reproduction
from calmctl.runs.record import METRICS_FILE, RUN_FILE, RunInfo, read_run

Kind = Literal["reproduction", "training", "evaluation"]
NAMES: dict[Kind, str] = {
    "reproduction": "`calmctl reproduce`",
    "training": "a training",
    "evaluation": "an evaluation",
}


def kind_of(folder: Path) -> Kind:
    """Return the kind of results in a folder.

    Raises:
        UserError: the folder has nothing that can be reported.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if is_reproduction(folder):
        return "reproduction"
    if is_training(folder):
        return "training"
    if is_evaluation(folder):
        return "evaluation"
    found = f" (kind {run.kind}, {run.status})" if (run := _run(folder)) else ""
    raise UserError(
        f"{folder}: nothing to report{found}; name folders of calmctl reproduce, complete trainings or evaluations"
    )


def _run(folder: Path) -> RunInfo | None:
    return read_run(folder) if (folder / RUN_FILE).exists() else None


def with_runs(folders: Sequence[Path]) -> list[Path]:
    """Replace each folder that is no run by the trainings and evaluations directly in it, and name each of them once.

    Such folders are those of a sweep, and of `calmctl eval all`. Damaged runs are kept, to be reported as errors, and
    reproductions named twice, which are refused.
    """
    found: list[Path] = []
    known: set[Path] = set()
    for folder in folders:
        if is_reproduction(folder):
            found.append(folder)
            continue
        is_run = (folder / RUN_FILE).exists()
        inner = [] if is_run else sorted(path for path in folder.glob("*") if _may_be_reported(path))
        new = [path for path in inner or [folder] if path.resolve() not in known]
        found += new
        known.update(path.resolve() for path in new)
    return found


def _may_be_reported(folder: Path) -> bool:
    if not (folder / RUN_FILE).exists():
        return (folder / METRICS_FILE).exists()
    try:
        return read_run(folder).kind in ("eval", "score", "train", "compose", "baseline")
    except UserError:
        return True


def readable(folders: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Return the folders that can be reported, and folder -> error message of the others.

    Damaged trainings and evaluations are left out; a mean over seeds needs all of its reproductions.

    Raises:
        UserError: no folder can be reported, or one cannot and there are reproductions.
    """
    broken: dict[Path, UserError] = {}
    kinds: set[Kind] = set()
    for folder in folders:
        try:
            kinds.add(_check(folder))
        except UserError as error:
            broken[folder] = error
    if broken and not kinds <= {"training", "evaluation"}:
        raise next(iter(broken.values()))
    if broken and not kinds:
        first = next(iter(broken.values()))
        raise UserError(f"none of {len(folders)} runs can be reported: {first}") if len(folders) > 1 else first
    return [folder for folder in folders if folder not in broken], {path: str(why) for path, why in broken.items()}


def _check(folder: Path) -> Kind:
    """Return the kind of a folder; raises UserError for a damaged or incomplete training or evaluation."""
    kind = kind_of(folder)
    if kind == "training":
        cost_rows([folder])
    elif kind == "evaluation":
        if not (run := read_run(folder)).is_complete:
            raise UserError(f"{folder}: the evaluation is not complete ({run.status}); run it again, it goes on")
        read_evaluation(Path(), str(folder))
    return kind


def common_kind(folders: Sequence[Path]) -> Kind:
    """Return the kind of results that all folders have; of trainings and evaluations together, `training`.

    Raises:
        UserError: other kinds differ, or a folder has nothing that can be reported.
    """
    kinds = {folder: kind_of(folder) for folder in folders}
    if set(kinds.values()) == {"training", "evaluation"}:
        return "training"
    first, *others = kinds
    for folder in others:
        if kinds[folder] != kinds[first]:
            raise UserError(
                f"{first} is of {NAMES[kinds[first]]} and {folder} of {NAMES[kinds[folder]]}; report them one by one"
            )
    return kinds[first]
