"""Hydra's plugins: runs side by side by joblib, settings chosen by Optuna; and a sweep that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calmctl.environment import installed_version
from calmctl.experiments.sweep import PLUGINS
from calmctl.experiments.swept_runs import outcomes, running
from calmctl.runs.record import read_run
from tests.structure import ROOT
from tests.sweeps import NAMES, SWEPT, command, folder

__all__ = ["folder"]  # a fixture
JOBLIB, OPTUNA = (
    pytest.mark.skipif(installed_version(package) is None, reason=f"{package} is not installed (extra `sweeps`)")
    for package in (PLUGINS["hydra/launcher=joblib"], PLUGINS["hydra/sweeper=optuna"])
)


def started(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "calmctl", *arguments, "--multirun", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(program, text=True, env=environment, start_new_session=True, **pipes)


def run(*arguments: str) -> tuple[int, list[dict], str]:
    process = started(*arguments)
    told, error = process.communicate(timeout=300)
    return process.returncode, json.loads(told) if told else [], error


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("jobs", [(), pytest.param(("--jobs", "2"), marks=JOBLIB)])
def test_a_sweep_that_ends_takes_its_runs_along_and_is_resumed(
    folder: Path, tmp_path: Path, sent: signal.Signals, jobs: tuple[str, ...]
) -> None:
    words = [*command(folder, tmp_path), *jobs, *SWEPT]
    process, deadline = started(*words, "train.log_every=1"), time.monotonic() + 200
    while not running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    _, error = process.communicate(timeout=100)
    assert process.returncode == (130 if sent == signal.SIGINT else -signal.SIGKILL), error
    if sent == signal.SIGINT:
        assert not running(tmp_path)
    while running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(tmp_path)
    status, rows, error = run(*words, "train.log_every=1")
    assert status == 0 and sorted(Path(row["run"]).name for row in rows) == NAMES, error
    assert all(read_run(tmp_path / name).is_complete for name in NAMES)


@pytest.mark.slow
@JOBLIB
def test_runs_side_by_side_give_what_they_give_one_after_another(folder: Path, tmp_path: Path) -> None:
    losses = []
    for name, jobs in (("one", ()), ("two", ("--jobs", "2"))):
        status, rows, error = run(*command(folder, tmp_path / name), *jobs, *SWEPT)
        assert status == 0, error
        losses.append({Path(row["run"]).name: row["validation_loss"] for row in rows})
    assert losses[0] == losses[1] and set(losses[0]) == set(NAMES)


@pytest.mark.slow
@OPTUNA
def test_optuna_sees_the_validation_losses_and_chooses_the_same_again(folder: Path, tmp_path: Path) -> None:
    words = [*command(folder, tmp_path), "train.lr=tag(log,interval(1e-4,1e-1))", "hydra/sweeper=optuna"]
    status, rows, error = run(*words, "hydra.sweeper.n_trials=3")
    assert status == 0 and len(rows) == 3, error
    best = min(outcomes(tmp_path), key=lambda outcome: outcome.validation_loss or 0.0)
    told = (tmp_path / "sweep/optimization_results.yaml").read_text()
    assert f"best_value: {best.validation_loss}" in told and best.run == Path(rows[0]["run"]).name
    finished = {path: read_run(path).facts["finished"] for path in tmp_path.glob("lr=*")}
    assert run(*words, "hydra.sweeper.n_trials=4")[0] == 0
    assert finished.items() <= {path: read_run(path).facts["finished"] for path in tmp_path.glob("lr=*")}.items()


@OPTUNA
def test_optuna_needs_validation_losses(folder: Path, tmp_path: Path) -> None:
    words = [*command(folder, tmp_path / "out"), "every=1,2", "hydra/sweeper=optuna"]
    status, _, error = run(*words, "train.validation_share=0", "train.keep_best=false")
    assert status == 2 and error.count("\n") == 1 and "give --validation FILE" in error


@pytest.mark.skipif(installed_version(PLUGINS["hydra/launcher=joblib"]) is not None, reason="joblib's launcher is here")
def test_a_missing_plugin_is_named(folder: Path, tmp_path: Path) -> None:
    status, _, error = run(*command(folder, tmp_path / "out"), "every=1,2", "--jobs", "2")
    assert status == 2 and error.count("\n") == 1 and "pip install 'calmctl[sweeps]'" in error
