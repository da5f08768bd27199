"""Run directories: started once, resumed, skipped when complete, refused when they are something else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calmctl.errors import UserError
from calmctl.runs.run import Run, list_runs, read_run
from data_builders.files import sha256_of
from data_builders.row_files import append_jsonl, read_jsonl
from data_builders.values import write_json

CONFIG: dict[str, Any] = {"lr": 0.1, "data": {"rows": 10, "mode": "padded"}, "layers": [1, 2]}

HOLD = """
import sys, time
from pathlib import Path
from calmctl.runs.run import Run
run = Run.start(Path(sys.argv[1]), kind="train", config={"lr": 1})
run.append_jsonl({"step": 1, "loss": 1.0})
print("started", flush=True)
time.sleep(60)
"""


def start(path: Path, **changes: Any) -> Run:
    arguments: dict[str, Any] = {"kind": "train", "config": CONFIG, "inputs": {"data": "abc"}, "seed": 1}
    return Run.start(path, **{**arguments, **changes})


def finished(path: Path) -> Path:
    with start(path) as run:
        run.finish()
    return path


def test_a_finished_run_says_what_made_it(tmp_path: Path) -> None:
    with start(tmp_path / "run", command=["calmctl", "train"]) as run:
        run.finish(trainable_parameters=5)
    info = read_run(tmp_path / "run")
    assert info.is_complete
    assert info.facts["command"] == ["calmctl", "train"]
    assert info.facts["trainable_parameters"] == 5
    assert info.facts["inputs"] == {"data": "abc"}
    assert info.facts["peak_memory_bytes"] > 1e6
    assert info.facts["hardware"]["cpu_cores"] >= 1
    assert info.facts["versions"]["python"].startswith("3.")
    for key in ("name", "config_sha256", "git_commit", "started", "finished", "seconds", "total_parameters"):
        assert key in info.facts


def test_a_complete_run_is_skipped_and_left_untouched(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    before = (path / "run.json").read_bytes()
    with start(path) as run:
        assert run.is_complete
    assert (path / "run.json").read_bytes() == before


def test_a_complete_run_that_is_not_current_is_taken_up_again(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    facts = read_run(path).facts
    with start(path, is_current=False, command=["again"]) as run:
        assert not run.is_complete and read_run(path).status == "running"
        with pytest.raises(UserError, match="in use"):
            start(path, is_current=False)
        run.finish()
    again = read_run(path).facts
    assert (again["status"], again["resumes"], again["command"]) == ("complete", 1, ["again"])
    assert again["started"] == facts["started"] and again["seconds"] >= facts["seconds"]


def test_another_kind_other_inputs_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    with pytest.raises(UserError, match="kind train, not eval"):
        start(path, kind="eval")
    with pytest.raises(UserError, match=r"other inputs \(changed: data\)"):
        start(path, inputs={"data": "other"})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds 'thesis.tex' and is no run directory"):
        start(tmp_path / "foreign")
    with pytest.raises(UserError, match="is a file"):
        start(tmp_path / "foreign" / "thesis.tex")
    assert sorted(entry.name for entry in (tmp_path / "foreign").iterdir()) == ["thesis.tex"]


def test_what_a_start_killed_at_once_leaves_behind_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in (".lock", "config.yaml", ".run.json.abc.tmp"):
        (path / name).touch()
    with start(path) as run:
        assert not run.is_resumed


def test_exceptions_mark_the_run_and_it_resumes_under_its_first_date(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), start(path) as run:
        run.append_jsonl({"step": 1})
        raise ZeroDivisionError("by zero")
    failed = read_run(path)
    assert (failed.status, failed.facts["error"]) == ("failed", "ZeroDivisionError: by zero")
    with pytest.raises(KeyboardInterrupt), start(path):
        raise KeyboardInterrupt
    assert read_run(path).status == "interrupted"
    with start(path) as run:
        run.finish()
    complete = read_run(path)
    assert complete.is_complete
    assert "error" not in complete.facts
    assert complete.facts["resumes"] == 2
    assert complete.facts["started"] == failed.facts["started"]


def test_a_run_that_failed_before_it_made_anything_does_not_block_a_corrected_one(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), start(path):
        raise ZeroDivisionError
    with start(path, config={"corrected": True}) as run:
        assert not run.is_resumed
        run.append_jsonl({"step": 1})
        run.fail("later")
    with pytest.raises(UserError, match="another configuration"):
        start(path)


def test_leaving_without_finishing_is_not_success(tmp_path: Path) -> None:
    with start(tmp_path / "run"):
        pass
    assert read_run(tmp_path / "run").status == "failed"


def test_a_second_start_is_refused_with_the_process_and_a_killed_one_can_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert read_run(path).status == "running"
        with pytest.raises(UserError, match=f"in use by process {process.pid}"):
            Run.start(path, kind="train", config={"lr": 1})
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read_run(path).status == "interrupted"
    with Run.start(path, kind="train", config={"lr": 1}) as run:
        assert run.is_resumed
        assert run.read_jsonl() == [{"step": 1, "loss": 1.0}]
        run.finish()


def test_a_write_that_dies_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"score": 1})

    def die(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"score": 2})
    assert json.loads(path.read_text()) == {"score": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_a_torn_last_line_is_ignored_by_readers_and_dropped_by_writers(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_jsonl(log) == [{"step": 1}, {"step": 2}]
    append_jsonl(log, [{"step": 3}])
    assert read_jsonl(log) == [{"step": 1}, {"step": 2}, {"step": 3}]
    log.write_text('{"torn')
    append_jsonl(log, [{"step": 1, "loss": float("nan")}])
    assert log.read_text() == '{"step": 1, "loss": null}\n'
    log.write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(UserError, match="log.jsonl:2: is no JSON"):
        read_jsonl(log)


def test_the_log_is_rewound_to_the_checkpoint(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        for step in range(5):
            run.append_jsonl({"step": step})
        run.rewind_log(2)
        assert [row["step"] for row in run.read_jsonl()] == [0, 1, 2]
        run.finish()


def test_progress_is_throttled_but_never_loses_the_end(tmp_path: Path) -> None:
    with start(tmp_path / "run") as run:
        run.report_progress("train", 0, 1000, loss=float("inf"))
        first = read_run(run.path).progress()
        for step in range(1, 1001):
            run.report_progress("train", step, 1000, loss=0.5)
            if step == 1:
                assert read_run(run.path).progress() == first
        run.finish()
    progress = read_run(tmp_path / "run").progress()
    assert first is not None
    assert first["loss"] is None
    assert progress is not None
    assert (progress["step"], progress["loss"], set(progress)) == (1000, 0.5, set(first))


def test_damaged_and_missing_run_files_are_named(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    (path / "run.json").write_text('{"kind": "tr')
    with pytest.raises(UserError, match=r"run/run\.json: is no JSON"):
        read_run(path)
    with pytest.raises(UserError, match="is no run directory"):
        read_run(tmp_path)


def test_runs_are_listed_with_their_stages(tmp_path: Path) -> None:
    with start(tmp_path / "a", kind="reproduce") as run:
        finished(tmp_path / "a" / "stage")
        run.finish()
    finished(tmp_path / "b")
    assert [info.path.relative_to(tmp_path).as_posix() for info in list_runs(tmp_path)] == [
        "a",
        "a/stage",
        "b",
    ]


def test_checksums_of_folders_see_names_and_contents_but_no_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    first = sha256_of(tmp_path)
    (tmp_path / ".lock").write_text("1")
    assert sha256_of(tmp_path) == first
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert sha256_of(tmp_path) != first
    before = sha256_of(tmp_path)
    (tmp_path / os.fsdecode(b"no text \xff")).write_text("two")  # a name may be any bytes
    first = sha256_of(tmp_path)
    (tmp_path / os.fsdecode(b"no text \xff")).rename(tmp_path / os.fsdecode(b"no text \xfe"))
    assert len({before, first, sha256_of(tmp_path)}) == 3
