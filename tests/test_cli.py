"""The command line: exit codes, one clear line for mistakes, results on stdout and nothing else there."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calmctl import __version__
from calmctl.baselines.options import METHODS
from calmctl.cli import options
from calmctl.cli.main import COMMANDS, app, main
from calmctl.config import list_presets
from calmctl.diagnosis import Check
from calmctl.errors import UserError
from calmctl.runs.run import Run
from calmctl.units import human_bytes, human_seconds

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    with Run.start(tmp_path / "runs" / "anchor", kind="train", config={"lr": 0.5}, command=["calmctl"], seed=3) as run:
        for step in range(8):
            run.append_jsonl({"step": step, "loss": 8.0 - step})
        (run.path / "model").mkdir()
        run.write_json("metrics.json", {"task": "kv", "metrics": {"kv_math": 84.3}})
        run.finish(trainable_parameters=1234, total_parameters=1234)
    return run.path


def test_commands_that_are_shown_can_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in a path or a setting, the shell reads the words that were given."""
    given = ["train", "aug", "--out", str(tmp_path / "it's a, run"), "name='a \"b\" ${c}'"]
    with Run.start(tmp_path / "it's a, run", kind="train", config={}, command=["/bin/calmctl", *given]) as run:
        run.append_jsonl({"step": 0, "loss": 1.0})
    assert main(["show", str(run.path)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("command "))
    assert shlex.split(line)[1:] == ["calmctl", *given]
    assert main(["generate", "--model", str(run.path), "Hi"]) == 2
    assert shlex.split(capsys.readouterr().err.split("`")[1]) == ["calmctl", "show", str(run.path)]


def test_help_and_version_answer_through_typer_too() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    rows = [line.strip("│").removeprefix(" ") for line in result.stdout.splitlines()]
    shown = [row.partition(" ")[0] for row in rows if row.partition(" ")[0] in COMMANDS]
    assert shown == list(COMMANDS)
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"calmctl {__version__}\n")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["data", "kv"], ["ls", "presets"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "Usage: calmctl" in capsys.readouterr().out


def test_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    """It stands there as text: help does not load what the table of methods needs."""
    main(["baseline", "--help"])
    assert f"{', '.join(METHODS[:-1])} or {METHODS[-1]}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nope"], ["No such option", "--nope", "`calmctl --help`"]),
        (["docter"], ["No such command 'docter'", "doctor"]),
        (["data"], ["Missing command", "kv"]),
        (["data", "kv"], ["--out", "`calmctl data kv --help`"]),
        (["data", "kv", "--out"], ["--out", "requires an argument"]),
        (["data", "kv", "--out", "x", "--seed", "one"], ["--seed"]),
        (["data", "kv", "--out", "x", "--preset", "nope"], ["unknown preset 'nope'", "data/kv"]),
        (["data", "kv", "--out", "x", "--config-dir", "nowhere"], ["nowhere", "no such folder"]),
        (["show", "nowhere"], ["nowhere is no run directory"]),
        (["ls", "runs", "nowhere"], ["nowhere: no such folder"]),
        (["ls", "presets", "nogroup"], ["'nogroup'"]),
    ],
)
def test_mistakes_exit_2_with_one_line_on_stderr(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("calmctl: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "last_line"),
    [
        (UserError("lr=0\nmust be positive"), 2, "calmctl: error: lr=0 must be positive"),
        (RuntimeError("out of memory"), 1, "calmctl: failed: RuntimeError: out of memory"),
        (KeyboardInterrupt(), 130, "calmctl: interrupted; run the same command again to resume"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException,
    code: int,
    last_line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("calmctl.runs.run.read_run", fail)
    assert main(["show", "somewhere"]) == code
    err = capsys.readouterr().err
    assert err.strip().splitlines()[-1] == last_line
    assert ("Traceback" in err) == (code == 1)


def test_data_errors_count_as_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    from data_builders.errors import UserError

    def fail(*_: Any) -> None:
        raise UserError("wrong file")

    monkeypatch.setattr("calmctl.runs.run.read_run", fail)
    assert main(["show", "somewhere"]) == 2


def test_show_prints_the_run_and_its_json(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run_folder)]) == 0
    text = capsys.readouterr().out
    for word in ("complete", "lr: 0.5", "kv_math", "84.3", "1,234", "last steps"):
        assert word in text
    assert main(["show", str(run_folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"] == {"lr": 0.5}
    assert shown["run"]["seed"] == 3
    assert [row["step"] for row in shown["last_log_rows"]] == [3, 4, 5, 6, 7]


def test_ls_lists_runs_and_models(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = run_folder.parent
    with Run.start(root / "eval", kind="eval", config={}) as run:
        run.finish()
    assert main(["ls", "runs", str(root), "--json"]) == 0
    assert [row["kind"] for row in json.loads(capsys.readouterr().out)] == ["train", "eval"]
    assert main(["ls", "models", str(root), "--json"]) == 0
    assert [row["path"] for row in json.loads(capsys.readouterr().out)] == [str(run_folder)]
    for what in ("runs", "models"):
        assert main(["ls", what, str(root)]) == 0
        assert str(run_folder) in capsys.readouterr().out.replace("\n", "")


def test_ls_lists_presets_and_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    names = [preset.name for preset in list_presets()]
    assert main(["ls", "presets", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == names
    assert main(["ls", "presets"]) == 0
    assert all(name in capsys.readouterr().out for name in names[:1])
    assert main(["ls", "tasks", "--json"]) == 0
    assert "kv" in [row["name"] for row in json.loads(capsys.readouterr().out)]


def test_data_kv_plans_builds_and_then_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    command = ["data", "kv", "--preset", "smoke", "--seed", "7", "--out", str(out)]
    assert main([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["seed"] == 7
    assert not out.exists()
    assert main([*command, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert (manifest["builder"], manifest["seed"]) == ("kv", 7)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(command) == 0
    assert "already built" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert main(["data", "kv", "--preset", "smoke", "--seed", "8", "--out", str(out)]) == 2
    assert "seed: 7 -> 8" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("missing", 1)])
def test_the_doctor_fails_only_where_something_required_is_missing(
    status: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("calmctl.diagnosis.diagnose", lambda: [Check("torch", status, "[detail]")])
    assert main(["doctor"]) == code
    assert "[detail]" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["ok"] == (code == 0)


def test_this_machine_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    names = {check["name"] for check in json.loads(capsys.readouterr().out)["checks"]}
    assert {"python", "torch", "torch build", "GPU", "attention", "memory", "disk", "evals"} <= names | {"GPU"}


def test_options_become_overrides_whatever_characters_they_hold() -> None:
    assert options.with_options(["a=1"], seed=None, name="it's", on=True, n=3) == [
        r"name='it\'s'",
        "on=true",
        "n=3",
        "a=1",
    ]
    assert human_bytes(5 * 1024**3) == "5.0 GiB"
    assert human_seconds(3725) == "1 h 02 min"


def test_the_process_exits_with_the_code() -> None:
    command = [sys.executable, "-m", "calmctl", "show", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "calmctl: error: nowhere is no run directory: it has no run.json\n"
