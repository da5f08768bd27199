"""Interruption: whatever ends a training, and whenever, the same start again ends as an undisturbed one does."""

import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from calmctl.cli.main import main
from calmctl.processes.parent import end_like_ctrl_c
from calmctl.runs.run import read_run
from calmctl.training.checkpoints import last_complete_checkpoint
from tests.interrupted import MODEL, SETTINGS, Config, assert_same, config, job, run_job, straight
from tests.trained import run_training

__all__ = ["config", "job", "straight"]  # fixtures
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

Moment = tuple[str, int]
"""The so-manieth operation on files that, written as `event path`, matches a pattern."""


def at(moment: Moment, act: Callable[[], object]) -> None:
    """Do something at that moment, once."""
    pattern, remaining = moment

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal remaining
        if event in FILE_EVENTS and re.search(pattern, f"{event} {arguments[0]}"):
            remaining -= 1
            if remaining == 0:
                act()

    sys.addaudithook(watch)


def train(config: Config, out: Path, die_at: Moment | None = None) -> None:
    """Train; the target of a process, which may kill itself."""
    if die_at is not None:
        at(die_at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run_job(config, out)


def command(arguments: list[str], moment: Moment, stderr: Path) -> None:
    """Run a command that gets a SIGTERM; the target of a process."""
    end_like_ctrl_c()
    sys.stderr = stderr.open("w", buffering=1)
    at(moment, lambda: os.kill(os.getpid(), signal.SIGTERM))
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Make processes as forks of one that has imported everything, so that no start takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.frozen"])
    return context


@pytest.mark.slow
def test_a_training_killed_at_the_worst_moments_ends_as_an_undisturbed_one(processes, config, straight, tmp_path):
    out = tmp_path / "run"
    moments = {
        ("open .*/checkpoint-5/", 2): "the first checkpoint is being written",
        ("open .*/checkpoint-10/.complete", 1): "the second is whole, but not sealed",
        ("shutil.rmtree .*/checkpoint-5$", 1): "the first is being removed, when the third is sealed",
        ("open .*/.model.tmp/", 2): "the model is being written",
        ("os.rename .*/.model.tmp$", 1): "the model is whole, but not in its place",
    }
    for moment, what in moments.items():
        process = processes.Process(target=train, args=(config, out, moment))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, what
        assert read_run(out).status == "interrupted" and not (out / "model").exists(), what
    run_training(config, out)
    assert_same(out, straight.path)
    assert {row["num_operands"] for row in read_run(out).log()} == {2, 3}, "the curriculum matters in this run"
    assert sorted(path.name for path in out.rglob("checkpoint-*")) == ["checkpoint-35", "checkpoint-40"]


@pytest.mark.slow
def test_a_training_killed_twenty_times_in_a_row_ends_as_an_undisturbed_one(processes, job, tmp_path):
    """Kill by the clock, and at random operations on files, most of which belong to checkpoints.

    Where a fast machine finishes in between, the rest of the kills befall another run.
    """
    straight, generator = run_job(job, tmp_path / "straight").path, random.Random(0)
    runs, kills = [tmp_path / "run0"], 0
    while kills < 20:
        moment = (str(tmp_path), generator.randint(1, 40)) if kills % 2 else None
        process = processes.Process(target=train, args=(job, runs[-1], moment))
        process.start()
        if moment is None:
            process.join(generator.uniform(0.1, 1.0))
            process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode:
            kills += 1
        else:
            runs.append(tmp_path / f"run{len(runs)}")
    for out in runs:
        assert_same(run_job(job, out).path, straight)


@pytest.mark.slow
def test_a_second_start_is_refused_and_sigterm_ends_the_first_with_a_whole_checkpoint(
    processes, config, tmp_path, capsys
):
    """The signal comes when a checkpoint is being written."""
    out, errors = tmp_path / "run", tmp_path / "stderr"
    model = ",".join(f"{name}:{value}" for name, value in MODEL.items())
    train_settings = [f"train.{name}={getattr(SETTINGS, name)}" for name in ("steps", "batch_size", "save_every")]
    arguments = ["train", "aug", "--data", config.dataset, "--tokenizer", config.tokenizer, "--out", str(out)]
    arguments += [f"+model={{{model}}}", *train_settings]
    process = processes.Process(target=command, args=(arguments, ("open .*/checkpoint-10/", 3), errors))
    process.start()
    while process.is_alive() and not (out / "run.json").exists():
        time.sleep(0.01)
    assert main(arguments) == 2
    assert f"{out} is in use by process {process.pid}; wait for it" in capsys.readouterr().err
    process.join()
    assert process.exitcode == 130
    said = "interrupted: the checkpoint of step 10 is saved; run the same command again to resume"
    assert errors.read_text() == f"calmctl: {said}\n"
    assert read_run(out).status == "interrupted"
    assert last_complete_checkpoint(out / "checkpoints").name == "checkpoint-10"
