"""Sweeps: a run for each combination of settings, chosen by Hydra's sweepers and started by its launchers.

Each run is a `calmctl` command in a process of its own, below the folder of the sweep; a run that fails or is killed
does not end the others. `sweep/` beside the runs holds their logs, `runs.jsonl` and what Hydra and its plugins write.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calmctl.config import sweeping
from calmctl.environment import installed_version
from calmctl.errors import CalmctlError, UserError
from calmctl.experiments.run_names import run_name
from calmctl.experiments.swept_runs import (
    OUTCOMES,
    OWN_FOLDER,
    POLL_SECONDS,
    USER_ERROR,
    OneRun,
    Outcome,
    finished,
    outcomes,
    parsed,
    running,
    visible_gpus,
)
from calmctl.opened_hydra import quoted
from calmctl.overrides import setting_of
from calmctl.processes.child import start_command, why_it_failed
from calmctl.runs.lock import FileLock
from calmctl.runs.record import LOCK_FILE, RUN_FILE
from calmctl.settings import check_key

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

# Hydra's plugins -> the packages that have them.
PLUGINS = {
    "hydra/launcher=joblib": "hydra-joblib-launcher",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
}


@dataclass(frozen=True)
class Sweep:
    """A command, and the settings in which its runs differ.

    Attributes:
        command: what all runs share, the words after `calmctl` without `--out` and overrides.
        schema: the dataclass of their settings.
        preset: group and name.
        overrides: of settings, one or several values each, and of Hydra's own configuration.
        config_dir, config_file: see `load_config`.
        out: the folder of the runs.
        jobs: how many run at the same time (by joblib); None = as Hydra's launcher does, one after another by default.
    """

    command: tuple[str, ...]
    schema: type
    preset: str
    overrides: tuple[str, ...]
    out: Path
    config_dir: Path | None = None
    config_file: Path | None = None
    jobs: int | None = None

    @property
    def own_folder(self) -> Path:
        """Return the folder of what belongs to no single run."""
        return self.out / OWN_FOLDER

    @property
    def shared(self) -> list[str]:
        """Return the overrides of settings with one value, which all runs have, as they were given."""
        found: dict[str, str] = {}
        for override in map(parsed, self.overrides):
            key = setting_of(override.input_line)
            found.pop(key, None)
            if not (key.startswith(("hydra.", "hydra/")) or override.is_sweep_override()):
                found[key] = override.input_line
        return list(found.values())

    def one_run(self) -> OneRun:
        """Return what runs each of the runs."""
        group = self.preset.rpartition("/")[0]
        return OneRun(self.command, tuple(self.shared), group, self.out.resolve(), Path.cwd())

    def runs(self) -> dict[str, list[str]] | None:
        """Return the runs by name, with their overrides; None if the sweeper chooses them one after another.

        Raises:
            UserError: malformed overrides, nothing to choose from, or two runs that are the same.
        """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        with self._opened() as (_, config, _):
            if config.runtime.choices["hydra/sweeper"] != "basic":
                return None
            batches = BasicSweeper.split_arguments([parsed(text) for text in config.overrides.task], None)
        runs: dict[str, list[str]] = {}
        for chosen in map(self.one_run().chosen, chain(*batches)):
            name = run_name(chosen)
            if name.casefold() in map(str.casefold, runs):
                raise UserError(f"--multirun: two runs would be {name}; leave one of the values out")
            runs[name] = chosen
        return runs

    def plan(self) -> dict[str, Any]:
        """Return the plan of the first run, or of what all runs share if their settings are not known before.

        Raises:
            UserError: the run would be refused, or the sweeper needs validation losses and there are none.
            CalmctlError: planning failed.
        """
        if (self.out / RUN_FILE).exists() or self.out.is_file():
            what = "is a file" if self.out.is_file() else "holds a run"
            raise UserError(f"{self.out} {what}; --multirun needs a folder for its runs: choose another --out")
        if self._lock.is_held():
            raise self._in_use()
        runs = self.runs()
        name, chosen = next(iter(runs.items())) if runs else ("new", [])
        with tempfile.TemporaryDirectory(prefix="calmctl-") as folder, ExitStack() as opened:
            output, errors = Path(folder, "output"), Path(folder, "errors")
            streams = [opened.enter_context(path.open("w")) for path in (output, errors)]
            command = [*self.one_run().arguments(chosen, self.out / name), "--dry-run", "--json"]
            if code := finished(start_command(command, streams[0], streams[1])):
                reason = why_it_failed(code, errors)
                raise UserError(reason) if code == USER_ERROR else CalmctlError(reason)
            plan: dict[str, Any] = json.loads(output.read_text())
        if runs is None and not plan.get("validation_examples"):
            raise UserError(
                "--multirun: this sweeper compares validation losses, and the runs have none; give --validation FILE "
                "or train.validation_share=0.05"
            )
        return plan

    def start(self) -> list[Outcome]:
        """Start, resume or find complete every run; return how each ended. Plan before: that finds most mistakes.

        Raises:
            UserError: another sweep runs in the folder, or Hydra, a sweeper or a launcher refuses something.
            KeyboardInterrupt: this process was told to end; the runs have ended.
        """
        self.own_folder.mkdir(parents=True, exist_ok=True)
        if not (lock := self._lock).acquire():
            raise self._in_use()
        held = ExitStack()
        held.callback(lock.release)
        (self.own_folder / OUTCOMES).unlink(missing_ok=True)
        with held, self._opened() as (hydra, config, arguments):
            task, is_parallel = self.one_run(), self.is_parallel(config)
            if is_parallel:
                gpus = () if "--nproc-per-node" in self.command else visible_gpus()
                task = replace(task, gpus=gpus, parent=os.getpid())
            try:
                hydra.multirun(None, task, arguments, with_log_configuration=False)
            except KeyboardInterrupt:
                while is_parallel and running(self.out):  # the runs have noticed, or will, that their parents are gone
                    time.sleep(POLL_SECONDS)
                raise
        return outcomes(self.out)

    @property
    def _lock(self) -> FileLock:
        """Return the lock of the folder: two sweeps at a time would take each other's runs for their own."""
        return FileLock(self.own_folder / LOCK_FILE)

    def _in_use(self) -> UserError:
        return UserError(f"{self.out}: process {self._lock.owner()} sweeps there; wait for it, or choose another --out")

    @staticmethod
    def is_parallel(config: Any) -> bool:
        """Return whether several runs may be on this machine at a time, by Hydra's configuration."""
        return config.runtime.choices["hydra/launcher"] == "joblib" and config.launcher.n_jobs not in (None, 1)

    @contextmanager
    def _opened(self) -> Iterator[tuple["Hydra", Any, list[str]]]:
        """Open Hydra; yield it, its own configuration (`hydra` in it) and the overrides for `multirun`."""
        from hydra.types import RunMode

        overrides = [*self._of_hydra(), *self.overrides]
        for text in overrides:
            if (package := PLUGINS.get(text)) and installed_version(package) is None:
                raise UserError(f"{text} needs {package}; pip install 'calmctl[sweeps]'")
        with sweeping(self.schema, self.preset, overrides, self.config_dir, self.config_file) as (hydra, arguments):
            config = hydra.compose_config(None, arguments, RunMode.MULTIRUN).hydra
            # A preset's own sweep is as if it were given, unless something else is given for a setting of it.
            if params := config.sweeper.get("params"):
                given = set(map(setting_of, arguments))
                own = {name: value for name, value in params.items() if setting_of(name) not in given}
                arguments += [self._of_preset(name, value) for name, value in own.items()]
                arguments.append("hydra.sweeper.params=null")
                config = hydra.compose_config(None, arguments, RunMode.MULTIRUN).hydra
            sampler = config.sweeper.get("sampler")
            if sampler is not None and "seed" in sampler and sampler.seed is None:
                # The same command has to choose the same settings again to resume their runs.
                arguments.append("hydra.sweeper.sampler.seed=0")
            yield hydra, config, arguments

    def _of_preset(self, name: str, value: object) -> str:
        """Return the override of a setting that a preset sweeps over, whether or not it gives it a value too."""
        if not re.fullmatch(r"[\w.]+", name):
            return f"{name}={value}"
        check_key(self.schema, name)
        return f"++{name}={value}"

    def _of_hydra(self) -> list[str]:
        """Return overrides of Hydra's configuration: its files in our folder, no logging, and `jobs`."""
        folder = quoted(str(self.own_folder.resolve()))
        found = [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=.", "hydra.output_subdir=null"]
        found += ["hydra/hydra_logging=none", "hydra/job_logging=none"]
        if self.jobs and self.jobs > 1:
            found += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={self.jobs}"]
            if "hydra/sweeper=optuna" in self.overrides:
                found.append(f"hydra.sweeper.n_jobs={self.jobs}")
        return found
