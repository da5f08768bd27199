"""The runs of a sweep: each is a command in a process of its own; what runs now, and how others ended."""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.escaping import visible
from calmctl.experiments.run_names import run_name
from calmctl.overrides import setting_of
from calmctl.processes.child import INTERRUPTED, start_command, why_it_failed
from calmctl.runs.lock import FileLock
from calmctl.runs.record import LOCK_FILE, RUN_FILE, read_run
from data_builders.row_files import append_jsonl, read_jsonl

OWN_FOLDER = "sweep"
"""Folder beside the runs, for what belongs to none of them alone."""
OUTCOMES = "runs.jsonl"
POLL_SECONDS = 0.5
USER_ERROR = 2


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `validation_loss` is the best one, None without validation; `problem` is empty if it is done."""

    run: str
    overrides: tuple[str, ...]
    problem: str
    validation_loss: float | None
    seconds: float


@dataclass(frozen=True)
class OneRun:
    """What Hydra's launchers call for each run, in any process: runs the command and returns its validation loss.

    Attributes:
        command: what all runs share, the words after `calmctl` without `--out` and overrides.
        shared: the overrides that all runs have.
        group: of the preset.
        out: the folder of the sweep.
        folder: the working directory of the commands.
        gpus: those of this machine, by the names that CUDA_VISIBLE_DEVICES has; runs take one each. Empty = leave it.
        parent: process of the sweep, where it has started others for the runs.
    """

    command: tuple[str, ...]
    shared: tuple[str, ...]
    group: str
    out: Path
    folder: Path
    gpus: tuple[str, ...] = ()
    parent: int | None = None

    def arguments(self, chosen: Sequence[str], out: Path) -> list[str]:
        """Return the words after `calmctl` of the run with the chosen settings."""
        return [*self.command, "--out", str(out), *self.shared, *chosen]

    def chosen(self, overrides: Sequence[str]) -> list[str]:
        """Return what Hydra chose for one run: of all its overrides, those that not every run has."""
        known, preset = set(map(setting_of, self.shared)), f"+{self.group}@_global_="
        return [
            text.removeprefix("++")
            for text in overrides
            if setting_of(text) not in known and not text.startswith(preset)
        ]

    def __call__(self, config: object) -> float:
        """Return the best validation loss; infinity for a run that failed or has none."""
        from hydra.core.hydra_config import HydraConfig

        hydra = HydraConfig.get()
        chosen = self.chosen(hydra.overrides.task)
        name, began = run_name(chosen), time.monotonic()
        out, own = self.out / name, self.out / OWN_FOLDER
        command, log, lock = self.arguments(chosen, out), own / f"{name}.log", FileLock(out / LOCK_FILE)
        os.chdir(self.folder)
        with one_of(self.gpus, own, hydra.job.num) as gpu, log.open("a") as stream:
            environment = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
            while True:
                code = finished(start_command(command, stream, environment=environment), self.parent)
                if code != USER_ERROR or not lock.is_held():
                    break
                while lock.is_held():  # a sweeper may choose the same settings twice
                    time.sleep(POLL_SECONDS)
        problem = why_it_failed(code, log) if code else ""
        loss = read_run(out).validation_loss() if not code else None
        row = {"run": name, "overrides": chosen, "problem": f"{problem} (log: {log})" if problem else ""}
        append_jsonl(own / OUTCOMES, [{**row, "validation_loss": loss, "seconds": time.monotonic() - began}])
        if problem:
            print(visible(f"{name}: {problem}"), file=sys.stderr, flush=True)
        return math.inf if loss is None else loss


class RunningRuns(Mapping[str, Path]):
    """The runs of a sweep that run now, name -> folder, and how far all are (see `cli.progress`).

    Args:
        count: number of all runs; None = not known.
    """

    def __init__(self, out: Path, count: int | None) -> None:
        self.out, self.count = out, count

    def __getitem__(self, name: str) -> Path:
        return self.out / name

    def __iter__(self) -> Iterator[str]:
        return iter(running(self.out))

    def __len__(self) -> int:
        return len(running(self.out))

    def summary(self, seconds_left: Mapping[str, float | None]) -> str:
        """Return how many runs have ended, of how many, and how many of them failed."""
        ended = outcomes(self.out)
        failed = sum(bool(outcome.problem) for outcome in ended)
        of = f" of {self.count}" if self.count else ""
        runs = "run" if (self.count or len(ended)) == 1 else "runs"
        return f"{len(ended)}{of} {runs} ended{f', {failed} of them failed' if failed else ''}"


def outcomes(out: Path) -> list[Outcome]:
    """Return how the runs of the sweep in a folder ended, in the order of their ends."""
    rows = read_jsonl(out / OWN_FOLDER / OUTCOMES)
    return [Outcome(**{**row, "overrides": tuple(row["overrides"])}) for row in rows]


def running(out: Path) -> list[str]:
    """Return the names of the runs directly below a folder that run now."""
    found = []
    for path in sorted(out.glob(f"*/{RUN_FILE}")):
        try:
            if read_run(path.parent).status == "running":
                found.append(path.parent.name)
        except (UserError, OSError):  # damaged, or deleted meanwhile
            continue
    return found


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count))))
    return tuple(named.split(",")[:count])


@contextmanager
def one_of(gpus: Sequence[str], folder: Path, number: int) -> Iterator[str | None]:
    """Yield a GPU that no other run of the sweep has; if all are taken, one by the run's number; None without GPUs."""
    for gpu in gpus:
        lock = FileLock(folder / f".gpu-{gpu.replace('/', '-')}")
        if lock.acquire():
            try:
                yield gpu
            finally:
                lock.release()
            return
    yield gpus[number % len(gpus)] if gpus else None


def finished(process: Any, parent: int | None = None) -> int:
    """Wait for a command and return its exit code; if this process is told to end, tell it too and wait for it.

    Args:
        parent: the process that started this one; once that is gone, end the command and this process.
    """
    try:
        while parent is not None and process.poll() is None and os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        if parent is None or os.getppid() == parent:
            return int(process.wait())
        process.send_signal(signal.SIGINT)
        process.wait()
        os._exit(INTERRUPTED)  # whoever gave this process its work would give it more, or wait for it
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        if process.poll() is None:  # a second Ctrl-C
            process.kill()
            process.wait()


def parsed(text: str) -> Any:
    """Return an override as Hydra parses it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(text)
