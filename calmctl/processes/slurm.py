"""SLURM: the batch script that runs a `calmctl` command on the nodes of a cluster, and its submission."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import CalmctlError, UserError

NOTICE_SECONDS = 120
DECIDED = (
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "partition", "account", "output",
    "open-mode", "signal", "requeue", "no-requeue", "J", "N", "t", "p", "A", "o",
)  # fmt: skip


@dataclass(frozen=True)
class SlurmConfig:
    """The resources and options of a SLURM job.

    Attributes:
        name: of the job.
        nodes: number of machines.
        gpus_per_node: processes per node, one per GPU; 0 = one process per core, on nodes without GPUs.
        cpus_per_gpu: cores per process; without GPUs, per node.
        time: limit in SLURM's format.
        partition, account: empty = the cluster's default.
        log: file for the job's output; %x is its name, %j its number.
        options: further options of sbatch, such as `--mem=0`.
        setup: shell lines to run first, such as `module load cuda` or the activation of an environment.
        python: interpreter that has calmctl.
    """

    name: str = "calmctl"
    nodes: int = 1
    gpus_per_node: int = 8
    cpus_per_gpu: int = 8
    time: str = "24:00:00"
    partition: str = ""
    account: str = ""
    log: str = "%x-%j.log"
    options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str = "python"

    def __post_init__(self) -> None:
        """Raise ValueError for settings out of range."""
        for name, least in (("nodes", 1), ("gpus_per_node", 0), ("cpus_per_gpu", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.time and _seconds(self.time) <= NOTICE_SECONDS:
            raise ValueError(f"time={self.time}: a job is told {NOTICE_SECONDS} seconds before the end; give it longer")
        for name in ("name", "partition", "account", "log"):
            if re.search(r"\s", getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r} must not have spaces in it")
        for option in self.options:
            if not re.fullmatch(r"--?[a-zA-Z][^\n]*", option):
                raise ValueError(f"options: {option!r} is no option of sbatch, such as --mem=0")
            if (name := option.lstrip("-").partition("=")[0].split()[0]) in DECIDED:
                raise ValueError(f"options: --{name} is decided by the other settings; leave it out")
        if not self.python:
            raise ValueError("python is empty; name the interpreter that has calmctl")


def launch_options(config: SlurmConfig, name: str, parameters: Mapping[str, Any]) -> str:
    """Return the options that let a command use all nodes and GPUs of the job.

    The runs of a sweep that run at the same time (`--jobs`) share its GPUs without further options.

    Args:
        name: of the command.
        parameters: values of the command's options, by name.

    Raises:
        UserError: the command cannot use that many nodes or GPUs.
    """
    is_alone = "nproc_per_node" not in parameters
    if config.nodes > 1 and "nnodes" not in parameters:
        raise UserError(f"nodes={config.nodes}: {name} runs on one machine; set nodes=1")
    if config.nodes > 1 and parameters.get("multirun"):
        raise UserError(
            f"nodes={config.nodes}: --multirun starts its runs on one machine; set nodes=1, or run it outside of a job "
            "with hydra/launcher=submitit_slurm, which submits a job for each run"
        )
    usable = int(name == "generate")
    if is_alone and config.gpus_per_node > usable:
        raise UserError(f"gpus_per_node={config.gpus_per_node}: {name} is one process; set gpus_per_node={usable}")
    if is_alone or (parameters.get("jobs") or 1) > 1:
        return ""
    launch = f" --nproc-per-node {config.gpus_per_node or config.cpus_per_gpu}"
    if "nnodes" in parameters:
        launch = f" --nnodes {config.nodes}{launch}"
    if config.nodes > 1:
        launch += ' --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))"'
    return launch


def batch_script(config: SlurmConfig, command: Sequence[str], launch: str) -> str:
    """Return the script that runs a command (the words after `calmctl`) with its launch options.

    Two minutes before the time limit the script interrupts the processes and requeues the job: the same command resumes
    its run. In a preempted job, SLURM signals the processes itself, and the script waits for them.
    """
    wanted = {
        "job-name": config.name,
        "nodes": config.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": config.gpus_per_node or None,
        "cpus-per-task": config.cpus_per_gpu * max(config.gpus_per_node, 1),
        "time": config.time,
        "partition": config.partition,
        "account": config.account,
        "output": config.log,
        "open-mode": "append",
        "signal": f"B:USR1@{NOTICE_SECONDS}",
    }
    options = [f"--{name}={value}" for name, value in wanted.items() if value]
    meeting = []
    if config.nodes > 1:
        # Not `head`, which closes the pipe while names are still being written: pipefail would end the script.
        meeting = ['first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)']
    lines = [
        "#!/bin/bash",
        f"# calmctl {shlex.join(command)}",
        *(f"#SBATCH {option}" for option in [*options, "--requeue", *config.options]),
        "set -euo pipefail",
        *config.setup,
        *meeting,
        "limit= again=yes",
        """trap 'limit=near again=yes; scancel --signal=INT "$SLURM_JOB_ID"' USR1""",
        "trap again=yes TERM",
        f"srun {shlex.quote(config.python)} -m calmctl {shlex.join(command)}{launch} &",
        # A signal ends the wait, not the processes, so wait again.
        'while [ "$again" ]; do again= code=0; wait $! || code=$?; done',
        'if [ "$limit" ] && [ "$code" != 0 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _seconds(time: str) -> int:
    """Return the seconds of a time in SLURM's format; raise ValueError for another format."""
    match = re.fullmatch(r"(?:(?P<d>\d+)-(?P<dh>\d+)(?::(?P<dm>\d+)(?::(?P<ds>\d+))?)?)"
                         r"|(?:(?P<h>\d+):(?P<hm>\d+):(?P<hs>\d+))|(?:(?P<m>\d+)(?::(?P<ms>\d+))?)", time)  # fmt: skip
    if match is None:
        raise ValueError(f"time={time}: write it as SLURM does, 30 (minutes), 30:00, 24:00:00, 2-12 or 2-12:30:00")
    found = {name: int(value or 0) for name, value in match.groupdict().items()}
    minutes, seconds = found["dm"] + found["hm"], found["ds"] + found["hs"] + found["ms"]
    if minutes > 59 or seconds > 59:
        raise ValueError(f"time={time}: there are no {max(minutes, seconds)} minutes or seconds beside a larger unit")
    return seconds + 60 * (minutes + found["m"]) + 3600 * (found["dh"] + found["h"]) + 86400 * found["d"]


def submit(script: Path) -> str:
    """Submit a script and return the job's number.

    Raises:
        UserError: there is no sbatch here.
        CalmctlError: sbatch refused the script.
    """
    if shutil.which("sbatch") is None:
        raise UserError(f"--submit: there is no sbatch on this machine; submit {script} where there is one")
    done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    if done.returncode:
        raise CalmctlError(f"sbatch: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return re.split(r"[;\s]", done.stdout.strip())[0]
