"""Run directories: start, resume or skip a run, and keep its record true whatever kills the process.

Usage:

    with Run.start(out, kind="train", config=config, command=sys.argv, seed=0, inputs={"data": sha}) as run:
        if not run.is_complete:
            run.append_jsonl({"step": 1, "loss": 0.5})
            run.finish(trainable_parameters=1024)
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from calmctl import environment
from calmctl.config import to_yaml
from calmctl.errors import CalmctlError, UserError, errno_of
from calmctl.processes.parent import end_if_asked
from calmctl.runs.identity import config_sha256, existing_run, growth
from calmctl.runs.lock import FileLock
from calmctl.runs.record import (
    CONFIG_FILE,
    LOCK_FILE,
    LOG_FILE,
    PROGRESS_FILE,
    RUN_FILE,
    Kind,
    RunInfo,
    Status,
    list_runs,
    new_facts,
    now,
    read_log,
    read_run,
)
from data_builders.files import read_text, write_text
from data_builders.row_files import append_jsonl, finite, json_lines, read_jsonl
from data_builders.values import write_json

__all__ = ["Run", "RunInfo", "config_sha256", "list_runs", "read_run"]

_PROGRESS_INTERVAL_SECONDS = 0.25
OnGrowth = Callable[[RunInfo, Mapping[str, Any]], None]
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Run:
    """A run directory that this process may write to; make one with `Run.start`."""

    def __init__(self, path: Path, facts: dict[str, Any], lock: FileLock, is_resumed: bool) -> None:
        self.path = path
        self.is_resumed = is_resumed
        self._facts = facts
        self._lock = lock
        self._began = time.monotonic()
        self._seconds_before = float(facts.get("seconds") or 0.0)
        self._last_progress = -1.0
        self._extends: tuple[dict[str, Any], str] | None = None  # record and settings of the finished run

    @classmethod
    def start(
        cls,
        path: Path,
        *,
        kind: Kind,
        config: object,
        command: Sequence[str] = (),
        seed: int | None = None,
        inputs: Mapping[str, str] | None = None,
        name: str | None = None,
        is_current: bool = True,
        on_growth: OnGrowth | None = None,
    ) -> Run:
        """Create the run at `path`, resume it, or find it complete (`run.is_complete`: nothing to do).

        `config` is a dataclass, whose fields say which settings may change (`schema.meaning`), or a mapping; `inputs`
        maps names of inputs to their sha256. Two runs are the same if kind, configuration and inputs are. Pass
        `is_current=False` to resume a complete run too, because results are missing or comparisons were added. With
        `on_growth`, a run that the configuration extends (see `identity.growth`) goes on, unless that function refuses:
        it gets the run and what the settings were before, which `run.json` lists under `extended`. A finished run stays
        as it was if what extends it ends with a UserError.

        Raises:
            UserError: `path` is in use, or holds another run or something else.
        """
        path, inputs = Path(path), dict(inputs or {})
        lock = FileLock(path / LOCK_FILE)
        existing = cls.look(path, kind=kind, config=config, inputs=inputs, is_current=is_current, on_growth=on_growth)
        if existing is not None and _is_done(existing, config, is_current, on_growth):
            return cls(path, existing.facts, lock, is_resumed=True)
        path.mkdir(parents=True, exist_ok=True)
        if not lock.acquire():
            raise in_use(path, lock)
        try:
            # Look again: another process may have been here before we had the lock.
            existing = existing_run(path, kind, config, inputs, on_growth is not None)
        except UserError:
            lock.release()
            raise
        if existing is not None and _is_done(existing, config, is_current, on_growth):
            lock.release()
            return cls(path, existing.facts, lock, is_resumed=True)
        identity = config_sha256(config)
        facts = new_facts(path.resolve(), kind, name, identity, command, seed, inputs)
        if existing is not None:
            facts |= {key: existing.facts[key] for key in ("started", "seconds", "extended") if key in existing.facts}
            if before := growth(existing, config):
                facts["extended"] = [*facts.get("extended", []), before]
            facts["resumes"] = int(existing.facts.get("resumes", 0)) + 1
        run = cls(path, facts, lock, is_resumed=existing is not None)
        if existing is not None and existing.is_complete and is_current:
            run._extends = existing.facts, read_text(path / CONFIG_FILE)
        (path / PROGRESS_FILE).unlink(missing_ok=True)  # an earlier attempt's
        run._write_facts()  # first: from here on the run is not complete
        run.write_text(CONFIG_FILE, to_yaml(config))
        return run

    @staticmethod
    def look(
        path: Path,
        *,
        kind: Kind,
        config: object,
        inputs: Mapping[str, str] | None = None,
        is_current: bool = True,
        on_growth: OnGrowth | None = None,
    ) -> RunInfo | None:
        """Return the run that `start` would resume or find complete; None if it would begin a new one.

        Raises:
            UserError: `start` would raise it.
        """
        existing = existing_run(path, kind, config, dict(inputs or {}), on_growth is not None)
        if existing is not None and _is_done(existing, config, is_current, on_growth):
            return existing
        if on_growth is not None and existing is not None and (before := growth(existing, config)):
            on_growth(existing, before)
        lock = FileLock(path / LOCK_FILE)
        if lock.is_held():
            raise in_use(path, lock)
        nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            reason = "may not be written to" if nearest.is_dir() else "is no folder"
            raise UserError(f"--out {path}: {nearest} {reason}; choose another --out")
        return existing

    @property
    def is_complete(self) -> bool:
        """Return whether the run is finished, by this process or an earlier one."""
        return bool(self._facts["status"] == "complete")

    @property
    def facts(self) -> dict[str, Any]:
        """Return a copy of the record (`run.json`)."""
        return dict(self._facts)

    @property
    def seconds(self) -> float:
        """Return the wall-clock time spent on the run so far, earlier attempts included."""
        return self._seconds_before + time.monotonic() - self._began

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run, atomically."""
        write_text(self.path / name, text)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically."""
        write_json(self.path / name, value)

    def append_jsonl(self, row: Mapping[str, Any], name: str = LOG_FILE, durable: bool = False) -> None:
        """Append one row to a log of the run; `durable=True` waits until the log is on the disk."""
        append_jsonl(self.path / name, [row], durable)

    def read_jsonl(self, name: str = LOG_FILE) -> list[dict[str, Any]]:
        """Read a log of the run; a line torn by a crash is left out."""
        return read_log(self.path / name) if name == LOG_FILE else read_jsonl(self.path / name)

    def rewind_log(self, step: int, name: str = LOG_FILE, without: str = "") -> None:
        """Drop the rows after `step`, which a run resumed from a checkpoint at `step` will write again.

        Rows at `step` that have the key `without` are dropped too.
        """
        rows = self.read_jsonl(name)
        kept = [row for row in rows if (row.get("step") or 0) < step + (not without or without not in row)]
        if len(kept) != len(rows):
            self.write_text(name, json_lines(kept))

    def report_progress(
        self,
        stage: str,
        step: int,
        total: int,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        eta_seconds: float | None = None,
        epoch: float | None = None,
        epochs: float | None = None,
        validation_loss: float | None = None,
    ) -> None:
        """Rewrite `progress.json`, at most four times a second; the last step is always written.

        `epoch` of `epochs` are the passes over the data, so far and in all.
        """
        end_if_asked()
        now = time.monotonic()
        if step < total and 0 <= now - self._last_progress < _PROGRESS_INTERVAL_SECONDS:
            return
        self._last_progress = now
        row = {
            "stage": stage,
            "step": step,
            "total": total,
            "loss": finite(loss),
            "validation_loss": finite(validation_loss),
            "tokens_per_second": finite(tokens_per_second),
            "eta_seconds": finite(eta_seconds),
            "epoch": finite(epoch),
            "epochs": finite(epochs),
            "peak_memory_bytes": environment.peak_gpu_memory() or environment.peak_memory(),
        }
        write_json(self.path / PROGRESS_FILE, row, durable=False)

    def finish(self, **facts: Any) -> None:
        """Mark the run complete, and add `facts` to `run.json` (`trainable_parameters=...`, say)."""
        self._end("complete", facts)

    def fail(self, message: str) -> None:
        """Mark the run failed; the same start resumes it."""
        self._end("failed", {"error": message})

    def interrupt(self) -> None:
        """Mark the run interrupted; the same start resumes it."""
        self._end("interrupted", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_complete:
            self._lock.release()
            return
        try:
            if self._extends is not None and isinstance(error, UserError):
                self._put_back(*self._extends)
            elif error is None:
                self.fail("the run ended without saying that it is finished")
            elif isinstance(error, Exception):
                self.fail(f"{type(error).__name__}: {error}")
            else:
                self.interrupt()
        except OSError:
            # A run whose record cannot be written counts as interrupted once its lock is released.
            self._lock.release()
            if error is None:
                raise
        is_told = isinstance(error, CalmctlError)
        if error is not None and not is_told and (number := errno_of(error)) in _DISK_FULL:
            raise CalmctlError(
                f"{self.path}: {os.strerror(number)}; make room, then run the same command again to resume"
            ) from error

    def _put_back(self, facts: dict[str, Any], settings: str) -> None:
        """Make the run the finished one again that it was to extend."""
        self.write_text(CONFIG_FILE, settings)
        self._facts = facts
        self._write_facts()
        self._lock.release()

    def _end(self, status: Status, facts: Mapping[str, Any]) -> None:
        self._facts |= facts
        self._facts["status"] = status
        self._facts["finished"] = now()
        self._facts["seconds"] = round(self.seconds, 3)
        self._facts["peak_memory_bytes"] = environment.peak_memory()
        if (gpu_memory := environment.peak_gpu_memory()) is not None:
            self._facts["peak_gpu_memory_bytes"] = gpu_memory
        self._facts["hardware"] = environment.hardware()  # torch may have been imported since the start
        self._write_facts()
        self._lock.release()

    def _write_facts(self) -> None:
        self.write_json(RUN_FILE, self._facts)


def _is_done(run: RunInfo, config: object, is_current: bool, on_growth: OnGrowth | None) -> bool:
    """Tell whether nothing is left to do in a run: it is complete and not to be extended."""
    return run.is_complete and is_current and not (on_growth is not None and growth(run, config))


def in_use(path: Path, lock: FileLock) -> UserError:
    """Return the error for a run that another process is writing."""
    return UserError(f"{path} is in use by process {lock.owner()}; wait for it, or choose another --out")
