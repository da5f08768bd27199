"""Trackers get the log; nothing is sent anywhere unless the user says so."""

import pytest

from calmctl.errors import UserError
from calmctl.training import checks
from calmctl.training.settings import TrainSettings
from tests.sums import sums_config, write_sums
from tests.trained import run_training


def test_tensorboard_shows_losses_and_speed(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra `tracking`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_sums(tmp_path)
    run = run_training(sums_config(tmp_path, validate=True, steps=4, report_to=("tensorboard",)), tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    shown = {event.step: event.value for event in events.Scalars("train/loss")}
    assert shown == pytest.approx({row["step"]: row["loss"] for row in run.read_jsonl() if "loss" in row})
    assert {event.step for event in events.Scalars("eval/loss")} == {3, 4}
    assert {"train/tokens_per_second", "train/grad_norm", "train/learning_rate"} <= set(events.Tags()["scalars"])


@pytest.mark.slow
def test_wandb_stays_offline_and_in_the_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra `tracking`")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    write_sums(tmp_path)
    run_training(sums_config(tmp_path, steps=2, report_to=("wandb",)), tmp_path / "out")
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))


def test_what_is_missing_or_unknown_is_one_clear_error(tmp_path, monkeypatch):
    write_sums(tmp_path)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    write_sums(tmp_path)
    with pytest.raises(UserError, match=r"train.report_to: wandb is not installed; .*calmctl\[tracking\]"):
        run_training(sums_config(tmp_path, report_to=("wandb",)), tmp_path / "out")
    with pytest.raises(ValueError, match="train.report_to='mlflow' is not one of"):
        TrainSettings(report_to=("mlflow",))


def test_half_precision_without_a_gpu_is_one_clear_error(tmp_path, monkeypatch):
    write_sums(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_sums(tmp_path)
    with pytest.raises(UserError, match="train.precision=fp16 needs a GPU"):
        run_training(sums_config(tmp_path, precision="fp16"), tmp_path / "out")
