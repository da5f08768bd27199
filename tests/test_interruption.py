"""Interruption: whatever ends a training, and whenever, the same start again ends as an undisturbed one does."""

import json
import multiprocessing
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from calmctl.cli.main import main
from calmctl.errors import CalmctlError
from calmctl.files import read_jsonl
from calmctl.modeling.bridge import BridgeConfig
from calmctl.parent import end_like_ctrl_c
from calmctl.runs import Run, read_run
from calmctl.training.checkpoints import SEAL_FILE, last_complete_checkpoint, rotate, seal
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.jobs import run_composition, run_training
from calmctl.training.settings import CurriculumSettings, TrainSettings
from calmctl.training.trainer import RunTrainer
from data_builders.word_tokenizer import build_word_tokenizer

MODEL = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "attention_dropout": 0.1,
}  # fmt: skip
# Rows of the log and checkpoints fall on different steps.
SETTINGS = TrainSettings(
    steps=40, batch_size=4, accumulation=2, optimizer="muon", lr=0.01, schedule="cosine", warmup_steps=10,
    save_every=5, log_every=3, curriculum=CurriculumSettings("num_operands", 2, 3, threshold=0.3),
)  # fmt: skip
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

Config = TrainConfig | ComposeConfig
Moment = tuple[str, int]
"""The so-manieth operation on files that, written as `event path`, matches a pattern."""


def run_job(config: Config, out: Path) -> Run:
    return run_training(config, out) if isinstance(config, TrainConfig) else run_composition(config, out)


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
    context.set_forkserver_preload([__name__])
    return context


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("data")
    build_word_tokenizer(["ab"], ["solve:"]).save_pretrained(folder / "tokenizer")
    generator = random.Random(0)
    with (folder / "train.jsonl").open("w") as stream:
        for _ in range(40):
            numbers = [generator.randrange(1, 30) for _ in range(generator.choice([2, 3]))]
            row = {"prompt": f"solve: {' + '.join(map(str, numbers))} =", "completion": f" {sum(numbers) % 2}"}
            stream.write(json.dumps(row | {"meta": {"num_operands": len(numbers)}}) + "\n")
    return TrainConfig(str(folder / "train.jsonl"), str(folder / "tokenizer"), model=MODEL, seed=3, train=SETTINGS)


@pytest.fixture(scope="module")
def straight(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing disturbs."""
    return run_training(config, tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture
def stopped(straight: Run, tmp_path: Path) -> Path:
    """The same run, stopped before it wrote its model."""
    shutil.copytree(straight.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    (tmp_path / "run/run.json").write_text(json.dumps(straight.facts | {"status": "interrupted"}))
    return tmp_path / "run"


def assert_same(path: Path, other: Path) -> None:
    """Compare what does not depend on time: the rows of the log, the parameters, and what a validation found."""
    times = ("seconds", "tokens_per_second")
    logs = ([{k: v for k, v in row.items() if k not in times} for row in read_run(p).log()] for p in (path, other))
    assert next(logs) == next(logs)
    results = [(p / "metrics.json").read_text() for p in (path, other) if (p / "metrics.json").exists()]
    assert len(results) in (0, 2) and results[:1] == results[1:]
    first, second = (load_file(p / "model/model.safetensors") for p in (path, other))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


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


@pytest.fixture(scope="module", params=["train", "packed", "compose"])
def job(request: pytest.FixtureRequest, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Config:
    validated = replace(SETTINGS, validation_share=0.2, eval_every=3, keep_best=True)
    if request.param == "train":
        return replace(config, train=validated)
    if request.param == "packed":
        corpus = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
        texts = [row["prompt"] + row["completion"] for row in read_jsonl(Path(config.dataset))]
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        packed = replace(validated, curriculum=CurriculumSettings(), packing=True, context=24)
        return replace(config, dataset=str(corpus), train=packed)
    bases = tmp_path_factory.mktemp("bases")
    for name, seed in (("anchor", 1), ("aug", 2)):
        run_training(replace(config, seed=seed, train=TrainSettings(steps=0)), bases / name)
    bridge = BridgeConfig(dropout=0.1)
    return ComposeConfig(
        str(bases / "anchor"), (str(bases / "aug"),), config.dataset, every=1, bridge=bridge, seed=3, train=SETTINGS
    )


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


def test_a_second_start_is_refused_and_sigterm_ends_the_first_without_half_a_checkpoint(
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
    assert errors.read_text() == "calmctl: interrupted; run the same command again to resume\n"
    assert read_run(out).status == "interrupted"
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-5"]


@pytest.mark.parametrize("bytes_left", [0, 8_000])
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(config, stopped, straight, monkeypatch, bytes_left):
    """The system refuses to let files grow, be they written by Python, torch or safetensors."""
    shutil.rmtree(stopped / "checkpoints/checkpoint-40")
    shutil.copytree(stopped / "checkpoints", stopped / "before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = RunTrainer._save_checkpoint

    def save_on_full_disk(*arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
        save(*arguments)

    try:
        with monkeypatch.context() as patch, pytest.raises(CalmctlError) as caught:
            patch.setattr(RunTrainer, "_save_checkpoint", save_on_full_disk)
            run_training(config, stopped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(caught.value)
    assert message.startswith(f"{stopped}/checkpoints/checkpoint-40: cannot be written (") and "\n" not in message
    assert message.endswith("make room, then run the same command again to resume")
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["checkpoint-35"]
    assert_same(run_training(config, stopped).path, straight.path)


def test_a_log_that_cannot_grow_is_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with (
            pytest.raises(CalmctlError, match=f"^{tmp_path}: .*; make room"),
            Run.start(tmp_path, kind="train", config={}) as run,
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            run.append_jsonl({"step": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_run(tmp_path).status == "interrupted"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name, harm, reason", [
    ("model.safetensors", cut, r"model.safetensors has [\d,]+ bytes instead of [\d,]+"),
    ("optimizer.pt", change_a_byte, "optimizer.pt is not what was written"),
    ("trainer_state.json", Path.unlink, "trainer_state.json is missing"),
    (SEAL_FILE, cut, f"{SEAL_FILE} cannot be read"),
])  # fmt: skip
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_used(
    config, stopped, straight, caplog, name, harm, reason
):
    harm(stopped / "checkpoints/checkpoint-40" / name)
    assert_same(run_training(config, stopped).path, straight.path)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("calmctl")]
    assert re.fullmatch(rf"{stopped}/checkpoints/checkpoint-40 is damaged \({reason}\): put aside as .*", warning)
    assert (stopped / "checkpoints/checkpoint-40.damaged").is_dir()


def test_a_checkpoint_without_a_seal_is_never_used(config, stopped):
    (stopped / "checkpoints/checkpoint-40" / SEAL_FILE).unlink()
    assert last_complete_checkpoint(stopped / "checkpoints").name == "checkpoint-35"
    (stopped / "checkpoints/checkpoint-35" / SEAL_FILE).unlink()
    assert last_complete_checkpoint(stopped / "checkpoints") is None
    assert not list((stopped / "checkpoints").iterdir())


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_code_in_a_checkpoint_is_not_run(config, stopped, tmp_path, name):
    torch.save(Harmful(tmp_path / "ran"), stopped / "checkpoints/checkpoint-35" / name)
    shutil.rmtree(stopped / "checkpoints/checkpoint-40")
    seal(stopped / "checkpoints/checkpoint-35")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        run_training(config, stopped)
    assert not (tmp_path / "ran").exists()


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    for name in ("5", "10", "15", "20", "100", "100.damaged"):
        (tmp_path / f"checkpoint-{name}").mkdir()
    rotate(tmp_path, best=str(tmp_path / "checkpoint-10"))
    assert {path.name.partition("-")[2] for path in tmp_path.iterdir()} == {"10", "20", "100", "100.damaged"}
