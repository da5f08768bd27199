"""Stages: commands that depend on each other, run side by side where cores allow and skipped when nothing changed.

A stage is a `calmctl` command in a process of its own that writes a run directory; the folder is all that stages share.
"""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from calmctl.errors import CalmctlError, UserError
from calmctl.files import read_json, write_json

STAGES_FILE = "stages.json"
PARENT_VARIABLE = "CALMCTL_STAGE_OF"
POLL_SECONDS = 0.1
GRACE_SECONDS = 20.0
SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Stage:
    """One command of an experiment.

    Attributes:
        command: what follows `calmctl`.
        folder: the run directory it writes.
        result: a file that exists when it is done.
        settings: what it depends on beside the stages it needs; when this changes, the stage runs again.
        needs: names of stages that have to be done before.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    result: Path
    settings: dict[str, Any]
    needs: tuple[str, ...] = ()


class StageRunner:
    """Runs stages; `running` names the folders of those under way, for a progress display.

    Args:
        root: folder of the experiment; keeps `stages.json` and a log per stage.
        jobs: stages that run at once.
        threads: CPU threads of each.
    """

    def __init__(self, root: Path, stages: Sequence[Stage], jobs: int, threads: int = 1) -> None:
        self.root, self.stages, self.jobs, self.threads = root, {stage.name: stage for stage in stages}, jobs, threads
        self.running: dict[str, Path] = {}
        self._processes: dict[str, tuple[subprocess.Popen[bytes], TextIO, float]] = {}
        path = root / STAGES_FILE
        self.done: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}

    def run(self) -> dict[str, float]:
        """Run what is not done yet and return the seconds that each stage took, whenever that was.

        Raises:
            UserError: a stage refused its input.
            CalmctlError: a stage failed; the message says where its log is.
        """
        waiting = [name for name in self.stages if not self.is_done(name)]
        try:
            while waiting or self._processes:
                for name in list(waiting):
                    stage = self.stages[name]
                    ready = all(self.is_done(need) for need in stage.needs)
                    if ready and len(self._processes) < self.jobs:
                        waiting.remove(name)
                        self._start(stage)
                self._collect()
                time.sleep(POLL_SECONDS)
        finally:
            self._stop_all()
        return {name: self.done[name]["seconds"] for name in self.stages}

    def is_done(self, name: str) -> bool:
        """Tell whether a stage has been done with the present settings, and everything it needs too."""
        stage = self.stages[name]
        recorded = self.done.get(name, {})
        return name not in self._processes and recorded.get("key") == self.key(name) and stage.result.exists()

    def key(self, name: str) -> str:
        """Return a hash of everything the stage depends on, through the stages it needs."""
        stage = self.stages[name]
        content = json.dumps([name, stage.settings, [self.key(need) for need in stage.needs]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _start(self, stage: Stage) -> None:
        log = self._log(stage.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("w")
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "false",
            PARENT_VARIABLE: str(os.getpid()),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "calmctl", *stage.command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._processes[stage.name] = (process, stream, time.monotonic())
        self.running[stage.name] = stage.folder

    def _collect(self) -> None:
        for name, (process, stream, began) in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            stream.close()
            del self._processes[name], self.running[name]
            if code:
                raise self._error(name, code)
            before = self.done.get(name, {}).get("seconds_before", 0.0)
            seconds = round(before + time.monotonic() - began, 1)
            self.done[name] = {"key": self.key(name), "seconds": seconds}
            write_json(self.root / STAGES_FILE, self.done)

    def _error(self, name: str, code: int) -> CalmctlError:
        lines = self._log(name).read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        reason = lines[-1].removeprefix("calmctl: ").removeprefix("error: ")
        message = f"stage {name}: {reason} (log: {self._log(name)})"
        return UserError(message) if code == 2 else CalmctlError(message)

    def _stop_all(self) -> None:
        """Interrupt what still runs, as Ctrl-C would, so that it can be resumed, and remember the time it took."""
        for process, _, _ in self._processes.values():
            process.send_signal(signal.SIGINT)
        for name, (process, stream, began) in self._processes.items():
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            stream.close()
            spent = self.done.get(name, {}).get("seconds_before", 0.0) + time.monotonic() - began
            self.done[name] = {"key": None, "seconds_before": round(spent, 1)}
            write_json(self.root / STAGES_FILE, self.done)
        self._processes.clear()
        self.running.clear()

    def _log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"


def die_with_parent() -> None:
    """In a stage's process: end when the experiment that started it is killed (Linux; elsewhere nothing happens)."""
    if os.environ.get(PARENT_VARIABLE) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
