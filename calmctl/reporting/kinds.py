"""What can be reported: which kind of results a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from calmctl.errors import UserError
from calmctl.reporting.cost_table import is_training
from calmctl.reporting.evaluations import is_evaluation
from calmctl.reporting.kv_results import TABLE_FILE
from calmctl.reporting.section_results import is_section
from calmctl.run_info import RUN_FILE, RunInfo, read_run

Kind = Literal["kv", "section", "training", "evaluation"]
NAMES: dict[Kind, str] = {
    "kv": "`calmctl reproduce kv`",
    "section": "`calmctl reproduce ntl` or `code`",
    "training": "a training",
    "evaluation": "an evaluation",
}


def kind_of(folder: Path) -> Kind:
    """Return what a folder holds.

    Raises:
        UserError: nothing that can be reported.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / TABLE_FILE).exists():
        return "kv"
    if is_section(folder):
        return "section"
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


def with_evaluations(folders: Sequence[Path]) -> list[Path]:
    """Return folders; one that is no run itself stands for the evaluations in it, as `calmctl eval all` writes them."""
    found: list[Path] = []
    for folder in folders:
        is_itself = (folder / RUN_FILE).exists() or (folder / TABLE_FILE).exists() or is_section(folder)
        inner = [] if is_itself else sorted(path for path in folder.glob("*") if is_evaluation(path))
        found += inner or [folder]
    return found


def common_kind(folders: Sequence[Path]) -> Kind:
    """Return what folders hold.

    Raises:
        UserError: they hold different things, or one nothing that can be reported.
    """
    kinds = {folder: kind_of(folder) for folder in folders}
    first, *others = kinds
    for folder in others:
        if kinds[folder] != kinds[first]:
            raise UserError(
                f"{first} is of {NAMES[kinds[first]]} and {folder} of {NAMES[kinds[folder]]}; report them one by one"
            )
    return kinds[first]
