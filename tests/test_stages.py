"""Stages: run once in order, skipped when they are done, clear when one fails, gone when the experiment is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from calmctl.config import load_config
from calmctl.errors import CalmctlError, UserError
from calmctl.experiments.stage import Stage
from calmctl.experiments.stages import StageRunner, missing_stages
from calmctl.runs.run import read_run
from data_builders.kv.build import KVDataConfig

DATA = ("data", "kv", "--preset", "smoke")


def data_stage(root: Path, name: str, seed: int = 0, needs: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> Stage:
    folder = root / name
    command = (*DATA, "--seed", str(seed), "--out", str(folder), *extra)
    config = load_config(KVDataConfig, "data/kv/smoke", [f"seed={seed}"])
    return Stage(name, command, folder, folder / "manifest.json", config, needs)


def started(root: Path) -> set[str]:
    return {path.stem for path in (root / "logs").glob("*.log")}


def run(root: Path, *stages: Stage) -> list[str]:
    return StageRunner(root, stages, jobs=2).run()


@pytest.mark.slow
def test_stages_run_once_and_again_when_they_or_their_needs_are_gone(tmp_path):
    first, second = data_stage(tmp_path, "a"), data_stage(tmp_path, "b", needs=("a",))
    runner = StageRunner(tmp_path, [first, second], jobs=2)
    assert runner.run() == ["a", "b"]
    assert set(runner.seconds()) == {"a", "b"} and all(value > 0 for value in runner.seconds().values())
    for log in (tmp_path / "logs").iterdir():
        log.unlink()
    assert run(tmp_path, first, second) == [] and not started(tmp_path)
    shutil.rmtree(first.folder)
    assert run(tmp_path, first, second) == ["a", "b"]


@pytest.mark.slow
def test_a_stage_of_another_configuration_is_refused_not_repeated(tmp_path):
    run(tmp_path, data_stage(tmp_path, "a"))
    changed = data_stage(tmp_path, "a", seed=1)
    for _ in range(2):  # also where it is done, and again
        with pytest.raises(UserError, match=r"stage a: .*another configuration \(seed: 0 -> 1\)"):
            run(tmp_path, changed)
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"stage a: .*another configuration \(seed: 0 -> 1\)"):
        run(tmp_path, changed)


@pytest.mark.slow
def test_missing_stages_are_those_not_done_and_those_that_need_them_and_others_are_refused(tmp_path):
    first, second = data_stage(tmp_path, "a"), data_stage(tmp_path, "b", needs=("a",))
    third, changed = data_stage(tmp_path, "c", needs=("b",)), data_stage(tmp_path, "b", seed=1, needs=("a",))
    assert missing_stages([first, second, third]) == ["a", "b", "c"]
    run(tmp_path, first, second)
    assert missing_stages([first, second, third]) == ["c"] and missing_stages([first, second]) == []
    with pytest.raises(UserError, match=r"/b was started with another configuration \(seed: 0 -> 1\)"):
        missing_stages([first, changed, third])
    shutil.rmtree(first.folder)
    assert missing_stages([first, second, third]) == ["a", "b", "c"]


def test_a_stage_that_leaves_no_result_is_an_error_not_a_wait(tmp_path):
    stage = replace(data_stage(tmp_path, "a"), result=tmp_path / "a" / "never")
    with pytest.raises(CalmctlError, match="never is missing"):
        run(tmp_path, stage, data_stage(tmp_path, "b", needs=("a",)))


def test_a_failing_stage_interrupts_the_others(tmp_path):
    bad = data_stage(tmp_path, "bad", extra=("num_keyz=1",))
    slow = replace(bad, name="slow", command=(*bad.command[:-1], "num_aug_rows=30000000"), folder=tmp_path / "slow")
    with pytest.raises(UserError, match="num_keyz"):
        run(tmp_path, bad, slow)


def test_a_stage_that_is_killed_says_by_what(tmp_path):
    runner = StageRunner(tmp_path, [data_stage(tmp_path, "a")], jobs=1)
    assert "killed by SIGKILL (perhaps out of memory)" in str(runner._error("a", -9))


def test_a_refused_input_is_the_stages_own_line(tmp_path):
    with pytest.raises(UserError, match=r"stage a: .*num_keyz.*log: .*a\.log"):
        run(tmp_path, data_stage(tmp_path, "a", extra=("num_keyz=3",)))


def test_a_missing_need_never_starts(tmp_path):
    bad, waiting = data_stage(tmp_path, "a", extra=("num_keys=0",)), data_stage(tmp_path, "b", needs=("a",))
    with pytest.raises(CalmctlError):
        run(tmp_path, bad, waiting)
    assert started(tmp_path) == {"a"}


@pytest.mark.slow
@pytest.mark.parametrize("signal_sent, status", [(signal.SIGINT, "interrupted"), (signal.SIGKILL, "interrupted")])
def test_an_experiment_that_ends_takes_its_stages_along_and_can_be_resumed(tmp_path, signal_sent, status):
    """Ctrl-C and kill -9 reach the experiment only; its stages must end too, and release their folders."""
    process = subprocess.Popen(
        [sys.executable, "-m", "calmctl", "reproduce", "kv", "--preset", "smoke", "--out", str(tmp_path),
         "anchor.train.steps=100000", "aug.train.steps=100000"],
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not (tmp_path / "aug" / "train_log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal_sent)
    _, errors = process.communicate(timeout=60)
    if signal_sent == signal.SIGINT:
        assert process.returncode == 130
        assert errors.strip().splitlines()[-1] == "calmctl: interrupted; run the same command again to resume"
    while read_run(tmp_path / "aug").status == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert read_run(tmp_path / "aug").status == status
    assert read_run(tmp_path).status == status
