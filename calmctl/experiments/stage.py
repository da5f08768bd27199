"""One stage of an experiment: a `calmctl` command that writes one run directory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmctl.config import to_dict
from calmctl.runs.identity import has_settings
from calmctl.runs.run import read_run


@dataclass(frozen=True)
class Stage:
    """One command of an experiment.

    Attributes:
        command: arguments after `calmctl`.
        folder: its run directory.
        result: a file that exists once the stage is complete.
        config: its settings.
        needs: names of stages that have to be complete first.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    result: Path
    config: object
    needs: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Return whether its run is complete and was started with these settings."""
        if not self.result.exists():
            return False
        run = read_run(self.folder)
        return run.is_complete and has_settings(run, self.config)

    @property
    def settings(self) -> dict[str, Any]:
        """Return its settings as a dictionary, as in its preset."""
        return to_dict(self.config)

    def launched(self, nproc_per_node: str | None) -> "Stage":
        """Return the stage with `--nproc-per-node`; a data stage always runs in one process."""
        if nproc_per_node is None or self.command[0] == "data":
            return self
        return replace(self, command=(*self.command, "--nproc-per-node", nproc_per_node))

    @property
    def kind(self) -> str:
        """Return the kind of its work: the command, and its task, method or model if it has one."""
        return " ".join(argument for argument in self.command[:2] if not argument.startswith("-"))

    @property
    def preset(self) -> str:
        """Return the name of the preset that holds its settings."""
        return self.name.replace("/", "_")


def stage_in(
    root: Path,
    name: str,
    command: Sequence[str],
    config: object,
    needs: Sequence[str] = (),
    result: str = "model/config.json",
) -> Stage:
    """Return the stage that writes `root / name`; its command reads `config` as a preset from `root / "conf"`."""
    folder = root / name
    options = ("--preset", name.replace("/", "_"), "--config-dir", str(root / "conf"), "--out", str(folder))
    return Stage(name, (*command, *options), folder, folder / result, config, tuple(needs))
