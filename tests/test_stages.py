"""Stages: run once in order, skipped when nothing changed, clear when one fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calmctl.errors import CalmctlError, UserError
from calmctl.experiments.stages import Stage, StageRunner

DATA = ("data", "kv", "--preset", "smoke")


def data_stage(root: Path, name: str, seed: int = 0, needs: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> Stage:
    folder = root / name
    command = (*DATA, "--seed", str(seed), "--out", str(folder), *extra)
    return Stage(name, command, folder, folder / "manifest.json", {"seed": seed}, needs)


def started(root: Path) -> set[str]:
    return {path.stem for path in (root / "logs").glob("*.log")}


def run(root: Path, *stages: Stage) -> dict[str, float]:
    return StageRunner(root, stages, jobs=2).run()


def test_stages_run_once_and_again_when_they_or_their_needs_change(tmp_path):
    first, second = data_stage(tmp_path, "a"), data_stage(tmp_path, "b", needs=("a",))
    seconds = run(tmp_path, first, second)
    assert set(seconds) == {"a", "b"} and all(value > 0 for value in seconds.values())
    for log in (tmp_path / "logs").iterdir():
        log.unlink()
    assert run(tmp_path, first, second) == seconds and not started(tmp_path)
    shutil.rmtree(first.folder)
    run(tmp_path, first, second)
    assert started(tmp_path) == {"a"}


def test_a_changed_setting_reruns_what_depends_on_it(tmp_path):
    first, second = data_stage(tmp_path, "a"), data_stage(tmp_path, "b", needs=("a",))
    runner = StageRunner(tmp_path, [first, second], jobs=2)
    keys = runner.key("a"), runner.key("b")
    changed = StageRunner(tmp_path, [data_stage(tmp_path, "a", seed=1), second], jobs=2)
    assert changed.key("a") != keys[0] and changed.key("b") != keys[1]


def test_a_refused_input_is_the_stages_own_line(tmp_path):
    with pytest.raises(UserError, match=r"stage a: .*num_keyz.*log: .*a\.log"):
        run(tmp_path, data_stage(tmp_path, "a", extra=("num_keyz=3",)))


def test_a_missing_need_never_starts(tmp_path):
    bad, waiting = data_stage(tmp_path, "a", extra=("num_keys=0",)), data_stage(tmp_path, "b", needs=("a",))
    with pytest.raises(CalmctlError):
        run(tmp_path, bad, waiting)
    assert started(tmp_path) == {"a"}


def test_an_interrupted_experiment_stops_its_stages_and_can_be_resumed(tmp_path):
    """Ctrl-C reaches the experiment only; its stages must end too, and say that they were interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "calmctl", "reproduce", "kv", "--preset", "smoke", "--out", str(tmp_path),
         "anchor.train.steps=100000", "aug.train.steps=100000"],
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not (tmp_path / "aug" / "train_log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "calmctl: interrupted; run the same command again to resume"
    assert json.loads((tmp_path / "aug" / "run.json").read_text())["status"] == "interrupted"
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "interrupted"
