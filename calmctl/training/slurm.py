"""SLURM: the batch script that runs a `calmctl` command on the nodes of a cluster, and its submission."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calmctl.errors import CalmctlError, UserError

OURS = ("--nproc-per-node", "--nnodes", "--rdzv-endpoint")


@dataclass(frozen=True)
class SlurmConfig:
    """What a job asks the cluster for.

    Attributes:
        name: of the job.
        nodes: machines.
        gpus_per_node: processes on each, one a GPU; 0 = one process a core on nodes without GPUs.
        cpus_per_gpu: cores for each process.
        time: limit, as SLURM writes it.
        partition, account: empty = the cluster's default.
        log: file for what the job prints; %x is its name, %j its number.
        options: further options of sbatch, such as `--mem=0`.
        setup: shell lines that come first, such as `module load cuda` or the activation of an environment.
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


def batch_script(config: SlurmConfig, command: Sequence[str]) -> str:
    """Return the script that runs a command (what follows `calmctl`) on all GPUs of the job.

    Two minutes before the time is up the processes are interrupted, and the job is queued again: the same command
    resumes its run.

    Raises:
        UserError: the command is empty, or says itself how it is launched.
    """
    if not command:
        raise UserError("no command is given; write `calmctl slurm -- compose --anchor ...`")
    if said := [text for text in command if text.partition("=")[0] in OURS]:
        raise UserError(f"{said[0]}: that follows from nodes and gpus_per_node of the job; leave it out")
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
        "signal": "B:USR1@120",
    }
    options = [f"--{name}={value}" for name, value in wanted.items() if value]
    count = config.gpus_per_node or config.cpus_per_gpu
    launch = f"--nnodes {config.nodes} --nproc-per-node {count}"
    meeting = []
    if config.nodes > 1:
        # Not `head`, which closes the pipe while names are still being written: that would end the script.
        meeting = ['first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)']
        launch += ' --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))"'
    lines = [
        "#!/bin/bash",
        f"# calmctl {shlex.join(command)}",
        *(f"#SBATCH {option}" for option in [*options, "--requeue", *config.options]),
        "set -euo pipefail",
        *config.setup,
        *meeting,
        "code=0 limit=",
        """trap 'limit=near; scancel --signal=INT "$SLURM_JOB_ID"' USR1""",
        f"srun {shlex.quote(config.python)} -m calmctl {shlex.join(command)} {launch} &",
        "wait $! || code=$?",
        # The signal has ended the wait, not the processes.
        'if [ "$limit" ]; then code=0; wait $! || code=$?; fi',
        'if [ "$limit" ] && [ "$code" != 0 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def submit(script: Path) -> str:
    """Submit a script and return the number of the job.

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
