"""Checkpoints of a training: a full disk, damage, and foreign code do no harm."""

import os
import pickle
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from calmctl.errors import CalmctlError
from calmctl.runs.run import Run, read_run
from calmctl.training.checkpoints import SEAL_FILE, last_complete_checkpoint, rotate, seal
from calmctl.training.trainer import RunTrainer
from tests.interrupted import assert_same, config, stopped, straight
from tests.trained import run_training

__all__ = ["config", "stopped", "straight"]  # fixtures


@pytest.mark.slow
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
