"""Signals that ask a training to end: it ends at a checkpoint of its step, and goes on as if there had been none."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch import Tensor

from calmctl.processes import parent
from calmctl.processes.parent import ASKING, Interrupted
from calmctl.runs.run import Run, read_run
from calmctl.training.checkpoints import last_complete_checkpoint
from calmctl.training.trainer import RunTrainer
from calmctl.training.validation import Validation
from data_builders.values import read_json
from tests.interrupted import Config, assert_same, config, job, run_job, straight

ROOT = Path(__file__).resolve().parents[1]
__all__ = ["config", "job", "straight"]  # fixtures


def signal_at_micro_batch(patch: pytest.MonkeyPatch, number: int, sent: signal.Signals) -> None:
    """Send this process a signal in the so-manieth micro-batch from now."""
    step, left = RunTrainer.training_step, number

    def counted(*arguments: Any) -> Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), sent)
        return step(*arguments)

    patch.setattr(RunTrainer, "training_step", counted)


def interrupt(config: Config, out: Path, monkeypatch: pytest.MonkeyPatch, number: int, sent: signal.Signals) -> str:
    """Run until the signal has ended it; return what is said."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
        signal_at_micro_batch(patch, number, sent)
        run_job(config, out)
    assert read_run(out).status == "interrupted" and not (out / "model").exists()
    return str(caught.value)


def test_a_signal_leaves_a_checkpoint_of_its_step_and_changes_nothing(config, straight, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    said = interrupt(config, out, monkeypatch, 13, signal.SIGUSR1)
    assert said == "interrupted: the checkpoint of step 7 is saved; run the same command again to resume"
    assert last_complete_checkpoint(out / "checkpoints").name == "checkpoint-7"
    assert_same(run_job(config, out).path, straight.path)
    assert f"{out}: goes on after step 7 of 40, from {out}/checkpoints/checkpoint-7\n" in capsys.readouterr().err


def test_an_interruption_that_a_library_swallows_is_raised_at_the_next_step(tmp_path, monkeypatch):
    asked = parent._Asked()
    monkeypatch.setattr(parent, "_asked", asked)
    with pytest.raises(KeyboardInterrupt), Run.start(tmp_path / "run", kind="data", config={}) as run:
        run.report_progress("building", 1, 3)
        with suppress(KeyboardInterrupt):
            asked.handle(signal.SIGTERM, None)
        run.report_progress("building", 2, 3)
    assert read_run(tmp_path / "run").status == "interrupted"


@pytest.mark.slow
def test_any_signal_in_any_step_leaves_a_checkpoint_of_it_and_changes_nothing(job, tmp_path, monkeypatch, capsys):
    """Several interruptions a run: steps that are and are not due for a row, a checkpoint, or a validation."""
    straight, generator = run_job(job, tmp_path / "straight").path, random.Random(0)
    out, step = tmp_path / "run", 0
    while (step := step + generator.randint(1, 13)) <= job.train.steps:
        begun = last_complete_checkpoint(out / "checkpoints")
        before = int(begun.name.partition("-")[2]) if begun else 0
        said = interrupt(job, out, monkeypatch, 2 * (step - before), generator.choice(ASKING))
        assert last_complete_checkpoint(out / "checkpoints").name == f"checkpoint-{step}"
        assert said == f"interrupted: the checkpoint of step {step} is saved; run the same command again to resume"
        assert (f"goes on after step {before} of 40" in capsys.readouterr().err) == (before > 0)
    assert_same(run_job(job, out).path, straight)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patience", "best"])
def test_a_signal_in_a_validation_ends_it_and_the_resumed_run_begins_with_it(config, tmp_path, monkeypatch, name):
    """At every validation once, the last one included, whose outcome decides what is saved or whether to go on."""
    ends_early = name == "patience"
    settings = replace(config.train, lr=3.0, adamw_lr=1.0, validation_share=0.3, eval_every=2)
    settings = replace(settings, steps=20 if ends_early else 5, keep_best=not ends_early, patience=int(ends_early))
    config = replace(config, train=settings)
    straight, out, batches = run_job(config, tmp_path / "straight").path, tmp_path / "run", Validation.__iter__

    def interrupted(validation: Validation) -> Iterator[dict[str, Tensor]]:
        for batch in batches(validation):
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    ended = [row["step"] for row in read_run(straight).log() if "validation_loss" in row]
    assert 2 <= len(ended) <= 4
    for step in ended:
        for _ in range(2):  # and the validation that the resumed run begins with
            with monkeypatch.context() as patch, pytest.raises(Interrupted):
                patch.setattr(Validation, "__iter__", interrupted)
                run_job(config, out)
            assert last_complete_checkpoint(out / "checkpoints").name == f"checkpoint-{step}"
        shutil.copytree(out, tmp_path / str(step))
        with monkeypatch.context() as patch, pytest.raises(Interrupted):  # the next step, if there is one
            if step == ended[-1]:
                raise Interrupted
            signal_at_micro_batch(patch, 2, signal.SIGINT)
            run_job(config, out)
    for step in ended:
        assert_same(run_job(config, tmp_path / str(step)).path, straight)
    assert_same(run_job(config, out).path, straight)


def test_without_a_checkpoint_it_is_said_and_a_second_signal_ends_at_once(config, tmp_path, monkeypatch):
    step = RunTrainer.training_step

    def twice(*arguments: Any) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="before there was a checkpoint; .* anew"):
        patch.setattr(RunTrainer, "training_step", twice)
        run_job(config, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*")) and read_json(tmp_path / "run.json")["status"] == "interrupted"


@pytest.mark.slow
def test_two_processes_agree_on_the_step_whichever_of_them_and_their_launcher_get_the_signal(config, tmp_path):
    """As SLURM sends it: to all at once. The launcher passes its own on, which is no second one."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "calmctl", "train", "aug", "--data", config.dataset, "--out", str(out)]
    command += ["--tokenizer", config.tokenizer, "--nproc-per-node", "2", "train.steps=100000", "train.batch_size=4"]
    command += [f"+model={{{','.join(f'{name}:{value}' for name, value in config.model.items())}}}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as launcher:
        while launcher.poll() is None and not (out / "train_log.jsonl").exists():
            time.sleep(0.2)
        for process in [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children()]:
            process.send_signal(signal.SIGINT)
        said = launcher.communicate(timeout=120)[1]
    step = last_complete_checkpoint(out / "checkpoints").name.partition("-")[2]
    words = f"interrupted: the checkpoint of step {step} is saved; run the same command again to resume"
    assert launcher.returncode == 130 and said.splitlines()[-1] == f"calmctl: {words}"
    assert read_json(out / "run.json")["status"] == "interrupted"
