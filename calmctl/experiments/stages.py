"""Stages: the commands of an experiment, run in parallel in dependency order and skipped once complete.

A stage is a `calmctl` command that runs in its own process and writes one run directory. Stages share only folders.
The run directory records whether the stage is complete, and with which settings and inputs.
"""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Protocol, TextIO

from calmctl.config import to_yaml
from calmctl.errors import CalmctlError, UserError
from calmctl.escaping import visible
from calmctl.experiments.stage import Stage
from calmctl.processes.child import INTERRUPTED, last_words, start_command, why_it_failed
from calmctl.processes.parent import Interrupted
from calmctl.runs.identity import refuse_other_settings
from calmctl.runs.run import read_run
from calmctl.units import human_seconds
from data_builders.files import write_text

POLL_SECONDS = 0.1


class Sharing(Protocol):
    """Settings of an experiment that say how its stages share a machine."""

    @property
    def threads(self) -> int:
        """Return the CPU threads of each stage."""

    @property
    def stages_at_once(self) -> int:
        """Return how many stages run at the same time."""


def missing_stages(stages: Sequence[Stage]) -> list[str]:
    """Return the names of incomplete stages and of those that need one, dependencies first.

    Raises:
        UserError: one of them was started with other settings.
    """
    missing: list[str] = []
    for stage in stages:
        if not stage.is_complete or set(stage.needs) & set(missing):
            refuse_other_settings(stage.folder, stage.config)
            missing.append(stage.name)
    return missing


@dataclass
class Progress:
    """How far the stages of one or several experiments are, for a display.

    Attributes:
        stages: all of them, finished ones included; unique by folder.
        at_once: how many run at the same time.
        running: name -> folder of the stages that are running now.
        finished: folder -> wall-clock seconds of the finished ones.
    """

    stages: list[Stage] = field(default_factory=list)
    at_once: int = 1
    running: dict[str, Path] = field(default_factory=dict)
    finished: dict[Path, float] = field(default_factory=dict)

    def finish(self, stage: Stage) -> None:
        """Count a stage as finished."""
        self.finished[stage.folder] = float(read_run(stage.folder).facts["seconds"])

    def summary(self, seconds_left: Mapping[str, float | None]) -> str:
        """Return which stage it is of how many, and the time left where it can be estimated.

        A stage that has not started is assumed to take as long as the mean of the finished ones of its kind (training
        bridges, evaluating one task, ...). Until all kinds that are left have been seen, the time is a lower bound.

        Args:
            seconds_left: of the running stages, by name, as far as they know.
        """
        if not self.stages:
            return ""
        of_kind: dict[str, list[float]] = {}
        for stage in self.stages:
            if stage.folder in self.finished:
                of_kind.setdefault(stage.kind, []).append(self.finished[stage.folder])
        running = dict(self.running)  # it may change meanwhile, as this is called by the thread of the display
        others = [each for each in self.stages if each.folder not in running.values()]
        waiting = [each for each in others if each.folder not in self.finished]
        left = [seconds_left.get(name) for name in running]
        left += [fmean(of_kind[stage.kind]) if stage.kind in of_kind else None for stage in waiting]
        known = [seconds for seconds in left if seconds is not None]
        # The longest running one may take longer than all others together.
        seconds = max(sum(known) / self.at_once, *known[: len(running)], 0.0)
        text = f"stage {min(len(self.finished) + 1, len(self.stages))} of {len(self.stages)}"
        if not known:
            return text
        return f"{text}, {'' if len(known) == len(left) else 'more than '}{human_seconds(seconds)} left"


def run_stages(
    root: Path,
    stages: Sequence[Stage],
    sharing: Sharing,
    nproc_per_node: str | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Run all incomplete stages; one at a time if `nproc_per_node` is set.

    Returns:
        Wall-clock seconds by stage name.

    Raises:
        CalmctlError: see `StageRunner.run`.
    """
    launched = [stage.launched(nproc_per_node) for stage in stages]
    jobs = 1 if nproc_per_node else sharing.stages_at_once
    runner = StageRunner(root.resolve(), launched, jobs, sharing.threads, progress)
    runner.run()
    return runner.seconds()


class StageRunner:
    """Runs stages in parallel, in dependency order.

    A stage is skipped if its run is complete and no stage it needs ran again. Otherwise its command runs, and resumes
    the run, returns at once, or fails because the settings or inputs differ from those of the existing run.

    Args:
        root: folder of the experiment; presets and logs of the stages are written into it.
        jobs: maximum number of stages that run at the same time.
        threads: CPU threads of each stage.
        progress: told which stages are running and finished; several runners may share one.
    """

    def __init__(
        self,
        root: Path,
        stages: Sequence[Stage],
        jobs: int,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.root, self.stages, self.jobs, self.threads = root, {stage.name: stage for stage in stages}, jobs, threads
        self.progress = progress or Progress()
        self.progress.at_once = jobs
        self._processes: dict[str, tuple[subprocess.Popen[bytes], TextIO]] = {}

    def run(self) -> list[str]:
        """Run all incomplete stages and return the names of those that ran.

        Raises:
            UserError: a stage rejected its input.
            CalmctlError: a stage failed; the message names its log.
            Interrupted: a stage was interrupted.
        """
        done: set[str] = set()
        ran: list[str] = []
        for stage in self.stages.values():
            write_text(self._preset_file(stage), f"# calmctl {shlex.join(stage.command)}\n{to_yaml(stage.config)}")
        try:
            while len(done) < len(self.stages):
                for stage in self.stages.values():
                    if stage.name in done or stage.name in self._processes or not done.issuperset(stage.needs):
                        continue
                    if stage.is_complete and not set(stage.needs) & set(ran):
                        done.add(stage.name)
                        self.progress.finish(stage)
                    elif len(self._processes) < self.jobs:
                        self._start(stage)
                finished = self._collect()
                done.update(finished)
                ran += finished
                time.sleep(POLL_SECONDS if self._processes else 0)
        finally:
            self._stop_all()
        return ran

    def seconds(self) -> dict[str, float]:
        """Return the wall-clock seconds of every stage, from its run record."""
        return {name: float(read_run(stage.folder).facts["seconds"]) for name, stage in self.stages.items()}

    def _start(self, stage: Stage) -> None:
        log = self._log(stage.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("a")
        process = start_command(stage.command, stream, threads=self.threads)
        self._processes[stage.name] = (process, stream)
        self.progress.running[stage.name] = stage.folder

    def _collect(self) -> list[str]:
        """Return the names of the stages that finished since the last call."""
        finished = []
        for name, (process, stream) in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            stream.close()
            del self._processes[name], self.progress.running[name]
            if code:
                raise self._error(name, code)
            if not self.stages[name].result.exists():
                result = self.stages[name].result
                raise CalmctlError(f"stage {name}: its run is complete, but {result} is missing; delete its folder")
            finished.append(name)
            self.progress.finish(self.stages[name])
        return finished

    def _error(self, name: str, code: int) -> CalmctlError | Interrupted:
        log = self._log(name)
        if code == INTERRUPTED:
            return Interrupted(f"stage {name}: {last_words(log)}")
        message = f"stage {name}: {why_it_failed(code, log)} (log: {log})"
        return UserError(message) if code == 2 else CalmctlError(message)

    def _stop_all(self) -> None:
        """Send SIGINT to the running stages and wait until they have saved; a second Ctrl-C kills them."""
        for process, _ in self._processes.values():
            process.send_signal(signal.SIGINT)
        try:
            for process, _ in self._processes.values():
                process.wait()
        finally:
            for name, (process, stream) in self._processes.items():
                if process.poll() is None:
                    process.kill()
                    process.wait()
                stream.close()
                self.progress.running.pop(name, None)
                print(visible(f"stage {name}: {last_words(self._log(name))}"), file=sys.stderr)
            self._processes.clear()

    def _preset_file(self, stage: Stage) -> Path:
        group = {"data": "/".join(stage.command[:2])}.get(stage.command[0], stage.command[0])
        return self.root / "conf" / group / f"{stage.preset}.yaml"

    def _log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"
