"""What the user sees while something runs: bars on a terminal, lines in a log file."""

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from calmctl.cli import progress as shown
from calmctl.cli.progress import Display, RunProgress, watching
from calmctl.experiments.stage import Stage
from calmctl.experiments.stages import Progress
from data_builders.values import write_json

TRAINING = {
    "stage": "training", "step": 120, "total": 1300, "loss": 1.23456, "validation_loss": 2.34567,
    "tokens_per_second": 3421.7, "epoch": 0.25, "epochs": 2.7, "eta_seconds": 754.2, "peak_memory_bytes": 3 * 2**30,
}  # fmt: skip


def drawn(width: int, *runs: RunProgress, summary: str = "") -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(Display(list(runs), summary))
    return output.getvalue().rstrip("\n").split("\n")


def running(tmp_path: Path, name: str = "calm") -> RunProgress:
    (tmp_path / name).mkdir()
    write_json(tmp_path / name / "progress.json", TRAINING)
    return RunProgress.read(name, tmp_path / name)


def test_a_run_takes_one_line_of_a_wide_terminal(tmp_path: Path) -> None:
    lines = drawn(140, running(tmp_path), RunProgress("lora"), summary="stage 5 of 14, 12 min left")
    assert len(lines) == 3 and all(len(line) <= 140 for line in lines)
    assert lines[0].startswith("calm training") and lines[1].startswith("lora starting")
    assert "120/1,300 pass 0.25 of 2.70, loss 1.235" in " ".join(lines[0].split())
    assert lines[2].rstrip() == "stage 5 of 14, 12 min left"


def test_everything_can_be_read_on_45_columns(tmp_path: Path) -> None:
    lines = drawn(45, running(tmp_path), summary="stage 5 of 14, more than 1 h 12 min left")
    assert all(len(line) <= 45 for line in lines)
    assert [lines[0].strip(), lines[-1].split()[0]] == ["calm training", "stage"]
    text = " ".join(" ".join(lines).split())
    for fact in ("120/1,300", "12 min 34 s left", "loss 1.235", "validation 2.346", "3.0 GiB", "stage 5 of 14"):
        assert fact in text


def test_a_long_name_is_cut_and_not_wrapped(tmp_path: Path) -> None:
    run = running(tmp_path, "eval_flores_unseen_" * 6)
    for width in (45, 80):
        lines = drawn(width, run)
        assert all(len(line) <= width for line in lines) and "…" in lines[0]


def test_a_log_file_gets_a_line_only_when_something_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shown, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(shown, "PLAIN_SECONDS", 0.02)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    run = running(tmp_path)
    with watching({"calm": tmp_path / "calm"}):
        time.sleep(0.3)
        write_json(tmp_path / "calm" / "progress.json", {**TRAINING, "step": 140})
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == run.line and lines[1:] == [run.line.replace("120/", "140/")]
    assert run.line == (
        "calm: training 120/1,300, pass 0.25 of 2.70, loss 1.235, validation 2.346, 3,422 tokens/s, 3.0 GiB, "
        "12 min 34 s left"
    )


def stages(tmp_path: Path, *commands: str) -> list[Stage]:
    return [Stage(f"s{i}", (*text.split(),), tmp_path / f"s{i}", tmp_path, None) for i, text in enumerate(commands)]


def finished(progress: Progress, stage: Stage, seconds: float) -> None:
    stage.folder.mkdir()
    write_json(stage.folder / "run.json", {"kind": "train", "status": "complete", "seconds": seconds})
    progress.finish(stage)


def test_the_time_left_of_an_experiment_follows_from_stages_of_the_same_kind(tmp_path: Path) -> None:
    planned = stages(tmp_path, "data ntl", "compose --out x", "eval flores", "eval flores", "eval gsm8k")
    progress = Progress(planned)
    assert progress.summary({}) == "stage 1 of 5"
    finished(progress, planned[0], 30.0)
    progress.running["s1"] = planned[1].folder
    assert progress.summary({"s1": None}) == "stage 2 of 5"
    assert progress.summary({"s1": 60.0}) == "stage 2 of 5, more than 1 min 00 s left"
    del progress.running["s1"]
    finished(progress, planned[1], 90.0)
    finished(progress, planned[2], 120.0)
    progress.running["s3"] = planned[3].folder
    assert progress.summary({"s3": 100.0}) == "stage 4 of 5, more than 1 min 40 s left"
    del progress.running["s3"]
    finished(progress, planned[3], 120.0)
    progress.running["s4"] = planned[4].folder
    assert progress.summary({"s4": 100.0}) == "stage 5 of 5, 1 min 40 s left"
    progress.at_once = 2  # one stage cannot be shared by two
    assert progress.summary({"s4": 100.0}) == "stage 5 of 5, 1 min 40 s left"


def test_a_stage_may_end_while_the_time_left_is_added_up(tmp_path: Path) -> None:
    progress = Progress(stages(tmp_path, "data ntl", "compose"), at_once=2)
    progress.running |= {stage.name: stage.folder for stage in progress.stages}

    class Ending(dict[str, float]):
        def get(self, name: str, default: object = None) -> float:  # type: ignore[override]
            progress.running.pop(name)
            return 60.0

    assert progress.summary(Ending()) == "stage 1 of 2, 1 min 00 s left"
