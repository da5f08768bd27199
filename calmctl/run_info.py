"""What a run directory says, for those who only read it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calmctl import files
from calmctl.errors import UserError

Kind = Literal["train", "compose", "baseline", "eval", "score", "reproduce", "data"]
Status = Literal["running", "complete", "failed", "interrupted"]

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
LOG_FILE = "train_log.jsonl"
PROGRESS_FILE = "progress.json"
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class RunInfo:
    """What `run.json` says about a run; `status` is `interrupted` if its process died without a word."""

    path: Path
    kind: str
    name: str
    status: str
    facts: dict[str, Any]
    """All of `run.json`."""

    @property
    def is_complete(self) -> bool:
        """Return whether the run finished."""
        return self.status == "complete"

    def log(self) -> list[dict[str, Any]]:
        """Return the rows of the training log."""
        return files.read_jsonl(self.path / LOG_FILE)

    def metrics(self) -> dict[str, Any] | None:
        """Return `metrics.json`, or None if the run has none."""
        path = self.path / "metrics.json"
        return files.read_json(path) if path.exists() else None

    def progress(self) -> dict[str, Any] | None:
        """Return the latest `progress.json`, or None if nothing was reported."""
        path = self.path / PROGRESS_FILE
        return files.read_json(path) if path.exists() else None


def read_run(path: Path) -> RunInfo:
    """Read what is known about the run at `path`.

    Raises:
        UserError: `path` is no run directory, or its `run.json` is damaged.
    """
    if not (path / RUN_FILE).exists():
        raise UserError(f"{path} is no run directory: it has no {RUN_FILE}")
    facts = files.read_json(path / RUN_FILE)
    if not isinstance(facts, dict) or not {"kind", "status"} <= facts.keys():
        raise UserError(f"{path / RUN_FILE}: damaged (no kind and status); delete or restore it")
    status = str(facts["status"])
    if status == "running" and not files.FileLock(path / LOCK_FILE).is_held():
        status = "interrupted"
    return RunInfo(path, str(facts["kind"]), str(facts.get("name", path.name)), status, facts)


def list_runs(root: Path) -> list[RunInfo]:
    """Return every run at or below `root`, sorted by path; runs inside runs (stages) count too."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "checkpoint")))
        if RUN_FILE in names:
            try:
                found.append(read_run(Path(folder)))
            except UserError as error:
                facts = {"error": str(error)}
                found.append(
                    RunInfo(Path(folder), kind="unknown", name=Path(folder).name, status="damaged", facts=facts)
                )
    return sorted(found, key=lambda run: run.path)
