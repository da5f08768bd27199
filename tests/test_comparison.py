"""Runs side by side: which settings differ, figures of evaluations, order, the best, CSV with exact numbers."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from calmctl.cli.main import main
from calmctl.reporting.compared_runs import compare
from calmctl.runs.record import read_run

COST = dict.fromkeys(("flops_per_token", "seconds_per_step", "tokens_per_second", "model_bytes"), 1.0)


def training(folder: Path, loss: float | None, kind: str = "compose", inputs: str = "d", **settings: Any) -> Path:
    """Write what a training leaves behind; `loss` is its best validation loss."""
    folder.mkdir(parents=True)
    facts = {"kind": kind, "status": "complete", "seconds": 1.5, "started": "2026-01-02T03:04:05+00:00"}
    facts |= {"inputs": {"data 1": "same", "data 2": inputs}}
    facts |= {"cost": COST | {"trainable_parameters": 10}, "trainable_parameters": 10}
    (folder / "run.json").write_text(json.dumps(facts))
    train = {"lr": 0.1, "betas": [0.9, 0.98]} | settings.pop("train", {})
    config = {"anchor": "a", "every": 2, "seed": 0, **settings, "train": train}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "train_log.jsonl").write_text('{"step": 0, "validation_loss": 0.001}\n{"step": 7, "loss": 0.5}\n')
    if loss is not None:
        metrics = {"validation_loss": loss + 1, "best_validation_loss": loss}
        (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "n": 3}))
    return folder


def evaluation(folder: Path, model: Path, task: str = "kv", **metrics: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"kind": "eval", "status": "complete", "seconds": 1.0}))
    told = {"task": task, "metrics": metrics, "n": 3, "model": {"source": str(model)}}
    (folder / "metrics.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three runs; those two with the better losses have evaluations, one inside and one beside."""
    root = tmp_path / "a sweep"
    for name, lr, loss in (("one", 0.1, 0.5), ("two", 1 / 3, 0.25), ("three", 1e-05, 2 / 3)):
        training(root / name, loss, train={"lr": lr}, every=4 if name == "two" else 2)
    evaluation(root / "one/eval", root / "one/model", accuracy=50.0, bits_per_byte=1.5)
    evaluation(tmp_path / "beside", root / "two", accuracy=25.0, bits_per_byte=1.25)
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["run"]).name for row in rows]


def test_only_settings_that_differ_are_shown_and_the_best_is_named(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told, _ = run(capsys, "report", sweep, tmp_path / "beside")
    assert status == 0 and f"Best by validation loss: {sweep / 'two'} (0.25)." in told
    assert "0.333333" in told and "betas" not in told and "Cost of training" in told
    rows = json.loads(run(capsys, "report", sweep, tmp_path / "beside", "--json")[1])
    assert names(rows) == ["one", "three", "two"] and [row["is_best"] for row in rows] == [False, False, True]
    assert rows[2]["settings"] == {"every": 4, "train.lr": 1 / 3} and rows[2]["flops_per_token"] == 1.0
    assert rows[2]["evaluations"] == {"kv.accuracy": 25.0, "kv.bits_per_byte": 1.25}
    assert rows[0]["evaluations"] == {"kv.accuracy": 50.0, "kv.bits_per_byte": 1.5} and rows[1]["evaluations"] == {}


@pytest.mark.parametrize(
    "column, order, best",
    [
        ("validation_loss", ["two", "one", "three"], "validation loss"),
        ("lr", ["three", "one", "two"], "validation loss"),
        ("train.lr", ["three", "one", "two"], "validation loss"),
        ("-lr", ["two", "one", "three"], "validation loss"),
        ("accuracy", ["one", "two", "three"], "kv.accuracy"),
        ("kv.bits_per_byte", ["two", "one", "three"], "kv.bits_per_byte"),
        ("-kv.bits_per_byte", ["one", "two", "three"], "kv.bits_per_byte"),
        ("run", ["one", "three", "two"], "validation loss"),
    ],
)
def test_order(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, order: list[str], best: str
) -> None:
    status, told, _ = run(capsys, "report", sweep, tmp_path / "beside", "--sort", column)
    lines = [line.split()[0] for line in told.partition("Best by")[0].splitlines() if line.strip()]
    assert status == 0 and [line for line in lines if line in order] == order
    winner = {"validation loss": "two", "kv.accuracy": "one", "kv.bits_per_byte": "two"}[best]
    assert f"Best by {best}: {sweep / winner} (" in told


def test_an_unknown_column_is_one_line_with_those_there_are(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("report", "ls"):
        words = ["ls", "runs"] if command == "ls" else ["report"]
        status, told, error = run(capsys, *words, sweep, "--sort", "lrr")
        assert (status, told, error.count("\n")) == (2, "", 1) and "train.lr" in error
    for name in ("one", "two"):
        settings = sweep / name / "config.yaml"
        settings.write_text(settings.read_text() + f"bridge:\n  lr: {len(name + settings.read_text())}\n")
    assert "could be train.lr or bridge.lr" in run(capsys, "report", sweep, "--sort", "lr")[2]


def test_csv_has_every_column_with_exact_numbers(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(sweep / "four", 0.1, train={"betas": [0.5, 0.6]}, anchor='c"d, é\ne')
    for command in (["report"], ["ls", "runs"]):
        file = tmp_path / f"new folder/{command[0]}.csv"
        assert run(capsys, *command, sweep, "--csv", file, "--sort", "lr")[0] == 0
        with file.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["kind"] == "compose"]
        found = {Path(row["run"]).name: row for row in rows}
        assert float(found["two"]["train.lr"]) == 1 / 3 and float(found["three"]["validation_loss"]) == 2 / 3
        assert json.loads(found["four"]["train.betas"]) == [0.5, 0.6] and found["four"]["anchor"] == 'c"d, é\ne'
        assert found["one"]["kv.accuracy"] == "50.0" and found["three"]["kv.accuracy"] == ""


def test_losses_on_other_examples_have_no_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other data, another tokenizer, or another part held out; a figure of an evaluation decides all the same."""
    others: list[dict[str, Any]] = [{"inputs": "e"}, {"anchor": "b"}, {"seed": 1}, {"columns": {"prompt": "question"}}]
    changed = {"validation_share": 0.5, "append_eos": False, "on_long_example": "truncate", "packing": True}
    others += [{"train": {name: value}} for name, value in changed.items()]
    for number, other in enumerate(others):
        root = tmp_path / str(number)
        training(root / "one", 0.5)
        training(root / "two", 0.25, **other)
        status, told, _ = run(capsys, "report", root)
        assert status == 0 and "No run is named the best by validation loss" in told and "Best" not in told
    training(tmp_path / "same/one", 0.5)
    training(tmp_path / "same/two", 0.25, train={"append_eos": True, "packing": False, "context": 512, "lr": 1.0})
    assert f"Best by validation loss: {tmp_path / 'same/two'} " in run(capsys, "report", tmp_path / "same")[1]
    evaluation(root / "one/eval", root / "one", accuracy=1.0)
    evaluation(root / "two/eval", root / "two", accuracy=2.0)
    assert f"Best by kv.accuracy: {root / 'two'} (2)." in run(capsys, "report", root, "--sort", "kv.accuracy")[1]


def test_a_list_has_runs_of_every_kind_and_state(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(tmp_path / "other", 0.125, kind="train", inputs="e", train={"steps": 5})
    unfinished = training(tmp_path / "unfinished", None)
    (unfinished / "run.json").write_text(json.dumps({"kind": "compose", "status": "failed", "inputs": {"data": "d"}}))
    log = [{"step": step, "validation_loss": loss} for step, loss in enumerate((0.1, 0.75, 0.8))]
    (unfinished / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    (training(tmp_path / "torn", None) / "train_log.jsonl").write_text("[]\n{}\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/run.json").write_text("{")
    (evaluation(tmp_path / "bad", sweep / "three", accuracy=1.0) / "metrics.json").write_text("[]")
    status, told, _ = run(capsys, "ls", "runs", tmp_path)
    assert status == 0 and "Best" not in told and "every=4, lr=0.333333" in told
    status, told, _ = run(capsys, "ls", "runs", tmp_path, "--json", "--sort", "validation_loss")
    rows = {row["path"]: row for row in json.loads(told)}
    assert len(rows) == 10 and next(iter(rows)) == str(tmp_path / "other")
    assert rows[str(unfinished)]["validation_loss"] == 0.75 and rows[str(unfinished)]["status"] == "failed"
    assert rows[str(tmp_path / "beside")]["evaluations"] == rows[str(sweep / "two")]["evaluations"]
    assert rows[str(tmp_path / "torn")]["status"] == rows[str(tmp_path / "damaged")]["status"] == "damaged"
    assert rows[str(tmp_path / "other")]["settings"]["every"] == 2


def test_a_run_that_is_named_twice_is_one(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep)
    for words in ([sweep, sweep / "one"], [sweep / "one", sweep, "three", "../a sweep"]):
        rows = json.loads(run(capsys, "report", *words, "--json")[1])
        assert sorted(names(rows)) == ["one", "three", "two"]
    status, _, error = run(capsys, "report", sweep, "--csv", ".")
    assert status == 2 and error == "calmctl: error: --csv .: a folder; give a file, such as runs.csv\n"


def test_several_evaluations_of_a_task_are_told_apart(sweep: Path) -> None:
    evaluation(sweep / "one/again", sweep / "one", accuracy=75.0)
    row = compare([read_run(sweep / "one")]).rows[0]
    assert row.figures == {"again.accuracy": 75.0, "eval.accuracy": 50.0, "eval.bits_per_byte": 1.5}


def test_moved_folders_and_losses_that_are_no_numbers(tmp_path: Path) -> None:
    """Paths inside of a run are compared relative to its folder; a loss of NaN is none."""
    for name in ("one", "two"):
        folder = training(tmp_path / name, math.nan, dataset=str(tmp_path / name / "data.jsonl"))
        facts = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(facts | {"folder": str(folder)}))
    compared = compare([read_run(tmp_path / name) for name in ("one", "two")])
    assert compared.settings == () and compared.verdict() == "" and compared.rows[0].facts["validation_loss"] is None


def test_reproductions_are_not_sorted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told, error = run(capsys, "report", folder, "--sort", "loss")
    assert (status, told) == (2, "") and "--sort and --csv are for trainings and evaluations" in error


def test_evaluations_stand_in_the_order_of_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [evaluation(tmp_path / name, Path("m"), accuracy=value) for name, value in (("a", 1.0), ("b", 2.0))]
    told = json.loads(run(capsys, "report", *folders, "--sort", "accuracy", "--json", "--csv", tmp_path / "x.csv")[1])
    assert names(told["evaluations"]) == ["b", "a"]
    assert (tmp_path / "x.csv").read_text().splitlines()[1].startswith(str(folders[1]))
