"""Reading run directories: the record of a run (run.json), its log, metrics and progress."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from calmctl import environment
from calmctl.errors import UserError
from calmctl.runs.lock import FileLock
from data_builders.row_files import read_jsonl
from data_builders.values import read_json

Kind = Literal["train", "compose", "baseline", "eval", "score", "reproduce", "data"]
Status = Literal["running", "complete", "failed", "interrupted"]

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
LOG_FILE = "train_log.jsonl"
PROGRESS_FILE = "progress.json"
# What an evaluation writes.
METRICS_FILE, PREDICTIONS_FILE = "metrics.json", "predictions.jsonl"
LOCK_FILE = ".lock"

_NUMBER = int | float
# Optional entries of run.json and their types.
_FACTS: dict[str, type | UnionType] = {
    **dict.fromkeys(("name", "config_sha256", "git_commit", "folder", "started", "finished", "error"), str),
    **dict.fromkeys(("command", "extended"), list),
    **dict.fromkeys(("versions", "hardware", "inputs", "cost"), dict),
    **dict.fromkeys(("seed", "seconds", "peak_memory_bytes", "peak_gpu_memory_bytes", "resumes"), _NUMBER),
    **dict.fromkeys(("trainable_parameters", "total_parameters"), _NUMBER),
}
_LOG_NUMBERS = (
    *("step", "loss", "learning_rate", "tokens_per_second", "seconds"),
    *("exact_match", "epoch", "validation_loss", "validation_exact_match", "validation_bits_per_byte"),
)


@dataclass(frozen=True)
class RunInfo:
    """The record of a run; `status` is `interrupted` if it says `running` but no process holds the lock."""

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
        return read_log(self.path / LOG_FILE)

    def metrics(self) -> dict[str, Any] | None:
        """Return `metrics.json`, or None if the run has none."""
        return _read_object(self.path / METRICS_FILE, {"metrics": dict})

    def validation_loss(self) -> float | None:
        """Return the best validation loss since the first step, so far; None without validation."""
        metrics = self.metrics()
        if metrics is not None and self.is_complete:
            found = [metrics["metrics"].get(name) for name in ("best_validation_loss", "validation_loss")]
        else:
            found = [row.get("validation_loss") for row in self.log() if row.get("step")]
        losses = [loss for loss in found if isinstance(loss, _NUMBER) and math.isfinite(loss)]
        return min(losses, default=None)

    def progress(self) -> dict[str, Any] | None:
        """Return the latest `progress.json`, or None if nothing was reported."""
        return _read_object(self.path / PROGRESS_FILE, {"stage": str, "step": _NUMBER, "total": _NUMBER})


def read_run(path: Path) -> RunInfo:
    """Read the record of the run at `path`.

    Raises:
        UserError: `path` is no run directory, or its `run.json` is damaged.
    """
    if not (path / RUN_FILE).exists():
        raise UserError(f"{path} is no run directory: it has no {RUN_FILE}")
    facts = read_json(path / RUN_FILE)
    _check_object(path / RUN_FILE, facts, {"kind": str, "status": str})
    stated = {name: kind for name, kind in _FACTS.items() if facts.get(name) is not None}
    _check_object(path / RUN_FILE, facts, stated)
    status = str(facts["status"])
    if status == "running" and not FileLock(path / LOCK_FILE).is_held():
        status = "interrupted"
    return RunInfo(path, str(facts["kind"]), str(facts.get("name", path.name)), status, facts)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a training log; raise UserError if it is damaged."""
    return read_jsonl(path, numbers=_LOG_NUMBERS)


def _read_object(path: Path, fields: Mapping[str, type | UnionType]) -> dict[str, Any] | None:
    """Return a JSON object that has these fields, or None if there is no such file."""
    if not path.exists():
        return None
    found: dict[str, Any] = read_json(path)
    _check_object(path, found, fields)
    return found


def _check_object(path: Path, found: Any, fields: Mapping[str, type | UnionType]) -> None:
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged (it is no JSON object); delete or restore it")
    for name, kind in fields.items():
        if not isinstance(found.get(name), kind) or isinstance(found[name], bool):
            raise UserError(f"{path}: damaged ({name!r} in it is missing or of a wrong type); delete or restore it")


def list_runs(root: Path) -> list[RunInfo]:
    """Return every run at or below `root`, sorted by path, runs inside runs (stages) included."""
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


def new_facts(
    folder: Path,
    kind: Kind,
    name: str | None,
    identity: str,
    command: Sequence[str],
    seed: int | None,
    inputs: Mapping[str, str],
) -> dict[str, Any]:
    """Return the record of a run that begins now."""
    return {
        "kind": kind,
        "name": name or folder.name,
        "folder": str(folder),
        "status": "running",
        "command": list(command),
        "config_sha256": identity,
        "git_commit": environment.git_commit(),
        "versions": environment.package_versions(),
        "hardware": environment.hardware(),
        "seed": seed,
        "started": now(),
        "finished": None,
        "seconds": None,
        "peak_memory_bytes": None,
        "trainable_parameters": None,
        "total_parameters": None,
        "inputs": dict(inputs),
    }


def now() -> str:
    """Return the time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
