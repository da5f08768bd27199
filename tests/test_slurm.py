"""SLURM: batch scripts run what was asked for on the whole job, and nonsense is refused before one is written."""

import os
import subprocess
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.processes.slurm import SlurmConfig, batch_script, launch_options

LAUNCHABLE = {"nproc_per_node": None, "nnodes": 1, "rdzv_endpoint": None}
COMMAND = ["compose", "--anchor", "a b", "--aug", "it's", "--out", "runs/x", "train.lr=1e-4"]


def script_of(config: SlurmConfig) -> str:
    return batch_script(config, COMMAND, launch_options(config, "compose", LAUNCHABLE))


def shell(script: str, folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run a script where some programs are others."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n",
    }
    return subprocess.run(["bash"], input=script, env=environment, cwd=folder, capture_output=True, text=True)


def test_a_batch_script_runs_the_command_given_on_all_nodes(tmp_path: Path) -> None:
    script = script_of(SlurmConfig(nodes=2, gpus_per_node=4, setup=("echo ready",)))
    done = shell(script, tmp_path, srun='printf "%s\\n" "$@"', scontrol="echo node1; sleep 0.1; echo node2")
    launch = ["--nnodes", "2", "--nproc-per-node", "4", "--rdzv-endpoint", "node1:20007"]
    assert done.stdout.splitlines() == ["ready", "python", "-m", "calmctl", *COMMAND, *launch]
    assert done.returncode == 0 and "#SBATCH --gpus-per-node=4\n" in script
    alone = shell(script_of(SlurmConfig()), tmp_path, srun="exit 2")
    assert alone.returncode == 2


def test_a_job_near_its_limit_is_interrupted_and_queued_again(tmp_path: Path) -> None:
    programs = {
        "srun": "kill -USR1 $PPID; for i in {1..100}; do sleep 0.05; [ -e interrupted ] && exit 130; done",
        "scancel": 'echo "scancel $@"; touch interrupted',
        "scontrol": 'echo "scontrol $@"',
    }  # fmt: skip
    done = shell(script_of(SlurmConfig()), tmp_path, **programs)
    assert done.stdout.splitlines() == ["scancel --signal=INT 7", "scontrol requeue 7"] and done.returncode == 130


def test_a_job_is_submitted_with_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.sh"
    submit = ["slurm", "nodes=2", "--script", str(file), "--submit", "--", *COMMAND]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(submit) == 2 and "there is no sbatch on this machine" in capsys.readouterr().err
    (tmp_path / "sbatch").write_text('#!/bin/sh\n[ -s "$2" ] && echo "42;cluster"\n')
    (tmp_path / "sbatch").chmod(0o755)
    assert main(submit) == 0 and f"submitted {file} as job 42" in capsys.readouterr().err
    assert file.read_text() == script_of(SlurmConfig(nodes=2))


def test_a_preempted_job_waits_for_its_processes_to_save(tmp_path: Path) -> None:
    """SLURM sends SIGCONT and SIGTERM to the script and the processes, and queues the job again itself."""
    programs = {"srun": "kill -CONT $PPID; kill -TERM $PPID; sleep 0.3; echo saved; exit 130", "scontrol": "echo no"}
    done = shell(script_of(SlurmConfig()), tmp_path, **programs)
    assert done.stdout == "saved\n" and done.returncode == 130


EVAL = ["eval", "kv", "--model", "m", "--data", "d", "--out", "o"]
DATA = ["data", "kv", "--out", "o"]
KV = ["reproduce", "kv", "--out", "o"]
SWEEP = ["compose", "--anchor", "a", "--aug", "b", "--out", "o", "every=1,2", "-m"]


@pytest.mark.parametrize("settings, command, launch", [
    (["nodes=2", "gpus_per_node=4"], EVAL, "--nnodes 2 --nproc-per-node 4 --rdzv-endpoint"),
    (["gpus_per_node=0", "cpus_per_gpu=3"], EVAL, "--nnodes 1 --nproc-per-node 3 &"),
    (["gpus_per_node=2"], KV, "--out o --nproc-per-node 2 &"),
    (["gpus_per_node=0"], DATA, "calmctl data kv --out o &"),
    (["gpus_per_node=2"], SWEEP, "every=1,2 -m --nnodes 1 --nproc-per-node 2 &"),
    (["gpus_per_node=2"], [*SWEEP, "--jobs", "2"], "every=1,2 -m --jobs 2 &"),
    (["gpus_per_node=1"], ["generate", "--model", "m", "a prompt"], "'a prompt' &"),
    (["time=30"], EVAL, "#SBATCH --time=30\n"), (["time=2-12:30"], EVAL, "#SBATCH --time=2-12:30\n"),
])  # fmt: skip
def test_a_command_gets_the_launch_options_that_it_has(settings, command, launch, capsys) -> None:
    assert main(["slurm", *settings, "--", *command]) == 0
    assert launch in capsys.readouterr().out


@pytest.mark.parametrize("settings, command, message", [
    ([], [], "no command is given"), ([], ["trian"], "No such command 'trian'"), ([], ["train"], "missing command"),
    ([], ["train", "ancor"], "No such command 'ancor'"), ([], ["compose", "--anchr", "a"], "No such option"),
    ([], ["compose", "--anchor", "a"], "Missing option '--out'"), ([], ["eval", "--out", "o"], "Missing argument"),
    ([], [*EVAL, "--limit", "many"], "--limit"), ([], [*EVAL, "--dry-run"], "--dry-run: a plan needs no job"),
    ([], [*EVAL, "--help"], "--help: that needs no job"), ([], [*EVAL, "--nnodes=2"], "leave it out"),
    ([], [*EVAL, "--nproc-per-node", "2"], "leave it out"), ([], ["slurm", "--", *EVAL], "not in a job"),
    ([], DATA, "gpus_per_node=8: data kv is one process; set gpus_per_node=0"),
    (["nodes=2", "gpus_per_node=0"], DATA, "nodes=2: data kv runs on one machine"),
    (["nodes=2"], KV, "nodes=2: reproduce kv runs on one machine"),
    (["nodes=2"], SWEEP, "nodes=2: --multirun starts its runs on one machine; set nodes=1"),
    (["nodes=2", "gpus_per_node=0"], ["train", "aug", "--out", "o", "--multirun"], "nodes=2: --multirun"),
    ([], [*SWEEP[:-1], "--jobs", "2"], "add --multirun"),
    ([], [*SWEEP, "--jobs", "2", "hydra/launcher=basic"], "leave one of them out"),
    (["nodes=0"], EVAL, "nodes=0 must be at least 1"), (["gpus_per_node=-1"], EVAL, "gpus_per_node=-1 must be"),
    (["time=-5"], EVAL, "time=-5"), (["time=1h"], EVAL, "time=1h: write it as SLURM does"),
    (["time=0"], EVAL, "give it longer"), (["time=1:00:99"], EVAL, "there are no 99"), (["time=2"], EVAL, "longer"),
    (["name='a b'"], EVAL, "must not have spaces"), (["options=['mem=0']"], EVAL, "is no option of sbatch"),
    (["options=['--time=3']"], EVAL, "--time is decided by the other settings"),
    (["python=''"], EVAL, "python is empty"),
])  # fmt: skip
def test_nonsense_is_refused_before_a_script_is_written(settings, command, message, tmp_path, capsys) -> None:
    script = tmp_path / "job.sh"
    assert main(["slurm", *settings, "--script", str(script), "--", *command]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == "" and not script.exists()
