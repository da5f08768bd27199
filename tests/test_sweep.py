"""Sweeps: a run for each combination, by the same command again; what fails, what is refused, what runs are called."""

import json
import os
import re
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.experiments.run_names import run_name
from calmctl.experiments.sweep import Sweep
from calmctl.experiments.swept_runs import one_of, outcomes, running
from calmctl.runs.lock import FileLock
from calmctl.runs.record import read_run
from calmctl.training.configs import ComposeConfig
from tests.forked import forked_stages
from tests.sweeps import NAMES, SWEPT, command, folder

__all__ = ["folder", "forked_stages"]  # fixtures


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.usefixtures("forked_stages")
def test_a_sweep_that_is_interrupted_goes_on_and_keeps_what_has_finished(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a sweep"
    status, told, _ = run(capsys, *command(folder, out), "--multirun", "--dry-run", "--json", *SWEPT)
    plan = json.loads(told)
    assert status == 0 and not out.exists() and plan["first run"]["train"]["lr"] == 0.001
    every = [[f"every={number}", f"train.lr={lr}"] for number in (1, 2) for lr in (0.001, 0.01)]
    assert plan["runs"] == dict(zip(NAMES, every, strict=True))

    ended = threading.Event()
    threading.Thread(target=_interrupt_after_one, args=(out, ended)).start()
    status, _, error = run(capsys, *command(folder, out), "--multirun", *SWEPT)
    ended.set()
    assert status == 130 and "run the same command again" in error and not running(out)
    first = read_run(out / NAMES[0])
    assert first.is_complete and not (out / NAMES[3]).exists()

    status, told, _ = run(capsys, *command(folder, out), "--multirun", "--json", *SWEPT)
    rows = {Path(row["run"]).name: row for row in json.loads(told)}
    assert status == 0 and set(rows) == set(NAMES) and read_run(out / NAMES[0]).facts == first.facts
    assert {path.name for path in out.iterdir()} == {*NAMES, "sweep"}
    for name, row in rows.items():
        said = read_run(out / name)
        assert row["settings"] == {"every": int(name[6]), "train.lr": float(name[11:])} and said.is_complete
        assert row["validation_loss"] == said.validation_loss() is not None
    best, *others = rows.values()
    assert all(best["validation_loss"] <= other["validation_loss"] for other in others)
    assert best["is_best"] and not any(other["is_best"] for other in others)


def _interrupt_after_one(out: Path, ended: threading.Event) -> None:
    while not ended.wait(0.05):
        if len(outcomes(out)) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            return


@pytest.mark.usefixtures("forked_stages")
def test_a_failed_run_is_told_and_the_others_go_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folder / "dc.jsonl", tmp_path / "b c.jsonl")
    (tmp_path / "a.jsonl").write_text('{"prompt": "no completion"}\n')
    data = [f"'{tmp_path / name}'" for name in ("b c.jsonl", "a.jsonl", "none.jsonl")]
    status, told, error = run(
        capsys, *command(folder, tmp_path / "out"), "-m", f"dataset={','.join(data)}", "train.steps=1"
    )
    done, *failed = sorted(outcomes(tmp_path / "out"), key=lambda outcome: bool(outcome.problem))
    assert status == 1 and error.splitlines()[-1].startswith("calmctl: failed: 2 of 3 runs failed: ")
    assert re.fullmatch(r"dataset=b-c\.jsonl-[0-9a-f]{6}", done.run) and done.run in told
    for outcome in failed:
        assert outcome.validation_loss is None and f"{outcome.run}: " in error
        assert Path(outcome.problem.rpartition("log: ")[2].removesuffix(")")).is_file()


@pytest.mark.usefixtures("forked_stages")
def test_what_is_wrong_for_all_runs_is_one_line_before_any_has_started(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "file").touch()
    shutil.copytree(folder / "aug", tmp_path / "run")
    (tmp_path / "run/run.json").write_text("{}")
    for arguments, message in (
        (["-m"], "no setting has several values"),
        (["-m", "every=1,1"], "two runs would be every=1"),
        (["-m", "train.lr=1e-3,0.001"], "two runs would be lr=0.001"),
        (["-m", "train.lr=interval(1e-4,1e-3)"], "does not support sweep type"),
        (["-m", "train.lrr=1,2"], "did you mean"),
        (["-m", "every=1,'a"], "write key=value"),
        (["-m", "every=1,2", "hydra/launcher=nothing"], "hydra/launcher"),
        (["-m", "every=1,2", "--preset", "nothing"], "unknown preset"),
        (["-m", "every=1,2", "--anchor", tmp_path / "nowhere"], "nowhere"),
        (["-m", "every=1,2", "--nnodes", "2"], "leave torchrun and --nnodes out"),
        (["-m", "every=1,2", "--jobs", "2", "--nproc-per-node", "2"], "leave one of them out"),
        (["-m", "every=1,2", "--jobs", "2", "hydra/launcher=basic"], "leave one of them out"),
        (["-m", "every=1,2", "--out", tmp_path / "file"], "is a file"),
        (["-m", "every=1,2", "--out", tmp_path / "run"], "holds a run"),
        (["-m", "train=1,2"], "train is a group of settings"),
        (["--jobs", "2"], "add --multirun"),
        (["hydra.sweeper.n_trials=3"], "add --multirun"),
        (["every=1,2"], "--multirun trains once for each value"),
    ):
        status, told, error = run(capsys, *command(folder, out), *arguments)
        assert (status, told, error.count("\n")) == (2, "", 1) and message in error, error
        assert not out.exists()


def test_the_other_commands_that_train_sweep_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file.yaml").write_text("seed: 1\n")
    monkeypatch.setattr(Sweep, "plan", lambda sweep: {"words": sweep.one_run().arguments(["x=1"], sweep.out / "x=1")})
    shared = ["--validation", "v v.jsonl", "--seed", "3", "--trust-remote-code"]
    for words, given in (
        (["train", "aug"], ["--base", "b", "--config", str(tmp_path / "a file.yaml")]),
        (["train", "anchor"], ["--tokenizer", "t", "--config-dir", str(tmp_path)]),
        (["baseline", "lora"], ["--anchor", "a", "--parameters", "30", "--nproc-per-node", "2"]),
    ):
        arguments = [*given, *shared, "--out", str(tmp_path / "o"), "--json", "train.lr=1,2", "train.steps=3", "-m"]
        status, told, error = run(capsys, *words, *arguments, "--dry-run")
        assert status == 0, error
        plan = json.loads(told)
        made = plan["first run"]["words"]
        assert list(plan["runs"]) == ["lr=1", "lr=2"]
        assert made[: len(words)] == words and made[-4:] == ["--out", str(tmp_path / "o/x=1"), "train.steps=3", "x=1"]
        between = made[len(words) : -4]
        assert sorted(between) == sorted([*given, *shared])
        assert all(between[between.index(name) + 1] == value for name, value in zip(*[iter(given)] * 2, strict=True))


@pytest.mark.parametrize(
    "overrides, name",
    [
        (["train.lr=0.0003", "every=4"], "lr=0.0003,every=4"),
        (["++train.lr=1e-05"], "lr=1e-05"),
        (["bridge.share=1", "train.share=2"], "bridge.share=1,train.share=2"),
        (["num=null", "merge_bases=true"], "num=null,merge_bases=true"),
    ],
)
def test_names_say_what_differs(overrides: list[str], name: str) -> None:
    assert run_name(overrides) == name


def test_names_are_safe_unique_and_stable() -> None:
    values = ["a/b", "'a b'", "a-b", "'../b'", "..", "'a,b'", "[[1,0],[0,2]]", "[[1,0,0,2]]", "'é'", "'ö'", "''"]
    values += ["x" * 300, "'a\\nb'", "'a\tb'", "'=b'", "'~'", "'" + "y" * 299 + "z'", "'" + "y" * 300 + "'", "-1", "1"]
    names = [run_name([f"a.key={value}"]) for value in values]
    assert len(set(names)) == len(values) and names == [run_name([f"a.key={value}"]) for value in values]
    assert all(re.fullmatch(r"key=[A-Za-z0-9._+-]*", name) and len(name) < 60 for name in names)
    long = [run_name([f"a{number}=value{number + other}" for number in range(60)]) for other in (0, 1)]
    assert len(set(long)) == 2 and all(len(name) < 200 for name in long)
    with pytest.raises(UserError, match="several values"):
        run_name([])


def test_what_runs_share_is_what_was_given_last(tmp_path: Path) -> None:
    given = ("train.lr=1", "every=1,2", "train.lr=2", "+num=3", "hydra.sweeper.max_batch_size=1", "every=4")
    sweep = Sweep(("compose",), ComposeConfig, "compose/default", given, tmp_path)
    assert sweep.shared == ["train.lr=2", "+num=3", "every=4"]
    assert sweep.one_run().chosen(["+compose@_global_=default", "++train.lr=2", "+num=3", "++seed=5"]) == ["seed=5"]
    presets = ["+compose@_global_=default", "compose@_global_=kv/tiny"]
    assert sweep.one_run().chosen(presets) == ["compose@_global_=kv/tiny"]


@pytest.mark.parametrize("is_preset", [True, False])
def test_a_preset_or_file_may_hold_a_sweep(tmp_path: Path, is_preset: bool) -> None:
    file = tmp_path / "compose/mine.yaml"
    file.parent.mkdir()
    start = "defaults: [default@_here_, _self_]\nhydra: {sweeper: {params: "
    file.write_text(start + '{train.lr: "1e-3,1e-2", every: "choice(1,2)"}}}\n')
    how = {"preset": "compose/mine", "config_dir": tmp_path} if is_preset else {"config_file": file}
    given = {"command": ("compose",), "schema": ComposeConfig, "preset": "compose/default", "out": tmp_path / "out"}
    sweep = Sweep(**{**given, "overrides": (), **how})  # type: ignore[arg-type]
    assert list(sweep.runs() or ()) == [f"lr={lr},every={number}" for lr in (0.001, 0.01) for number in (1, 2)]
    assert list(replace(sweep, overrides=("every=3",)).runs() or ()) == ["lr=0.001", "lr=0.01"]
    file.write_text("hydra: {sweeper: {params: {every: '1,2', '++num': '3', seed: 4}}}\n")  # and nothing else
    runs = replace(sweep, overrides=("train.lr=1,2",)).runs() or {}
    assert list(runs) == [f"lr={lr},every={number},num=3,seed=4" for lr in (1, 2) for number in (1, 2)]
    assert runs["lr=1,every=1,num=3,seed=4"] == ["train.lr=1", "every=1", "num=3", "seed=4"]
    file.write_text(start + '{train.lrr: "1e-3,1e-2"}}}\n')
    with pytest.raises(UserError, match="did you mean 'train.lr'"):
        sweep.runs()


def test_a_sweep_in_a_file_is_no_single_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless each setting that it sweeps over is given one value, as its own runs are."""
    file = tmp_path / "a sweep.yaml"
    sweep = '{train.lr: "1e-3,1e-2", ++every: "choice(1,2)"}'
    file.write_text(f"defaults: [default@_here_, _self_]\nhydra: {{mode: MULTIRUN, sweeper: {{params: {sweep}}}}}\n")
    told = [*command(folder, tmp_path / "out"), "--config", file, "--dry-run", "--json"]
    for given, left in (([], "every, train.lr"), (["every=2"], "train.lr")):
        status, _, error = run(capsys, *told, *given)
        assert status == 2 and f"a sweep.yaml holds a sweep over {left}; add --multirun" in error
        assert error.count("\n") == 1
    status, plan, _ = run(capsys, *told, "every=2", "++train.lr=0.01")
    assert status == 0 and json.loads(plan)["train"]["lr"] == 0.01
    assert run(capsys, *told, "--multirun")[0] == 0
    assert run(capsys, "settings", "compose", "--config", file)[0] == 0


def test_a_folder_takes_one_sweep_at_a_time(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two would count each other's runs as theirs, and lose sight of those that failed."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/runs.jsonl").write_text("of the other one\n")
    lock = FileLock(tmp_path / "sweep/.lock")
    assert lock.acquire()
    status, told, error = run(capsys, *command(folder, tmp_path), "-m", "every=1,2")
    assert (status, told) == (2, "") and f"process {os.getpid()} sweeps there" in error and error.count("\n") == 1
    sweep = Sweep(("compose",), ComposeConfig, "compose/default", ("every=1,2",), tmp_path)
    with pytest.raises(UserError, match="sweeps there"):
        sweep.start()
    assert (tmp_path / "sweep/runs.jsonl").read_text() == "of the other one\n"


def test_runs_at_the_same_time_have_a_gpu_each(tmp_path: Path) -> None:
    with one_of(("0", "MIG-a/1"), tmp_path, 0) as first:
        with one_of(("0", "MIG-a/1"), tmp_path, 1) as second:
            with one_of(("0", "MIG-a/1"), tmp_path, 5) as shared:
                assert (first, second, shared) == ("0", "MIG-a/1", "MIG-a/1")
    with one_of(("0", "MIG-a/1"), tmp_path, 9) as again, one_of((), tmp_path, 0) as nothing:
        assert again == "0" and nothing is None
