"""`calmctl generate --prompts FILE --out FILE`: every row completed, in order, and nothing twice."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from calmctl.cli.main import main
from calmctl.evaluation import completing
from calmctl.evaluation.completing import complete_file, work_folder
from calmctl.evaluation.models import How, Model
from calmctl.inference.decoding import Decoding
from calmctl.runs.lock import FileLock
from calmctl.runs.record import LOCK_FILE
from data_builders.row_files import read_jsonl
from tests.additions import write
from tests.task_data import write_models

ROWS = [{"id": f"row {n}", "prompt": text} for n, text in enumerate(("the", "a longer one", "ab", "the\nend", "Ü"))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))["plain"]


def generate(model: Path, *arguments: object) -> int:
    return main(["generate", "--model", str(model), "-n", "4", *map(str, arguments)])


def test_a_file_is_completed_as_its_prompts_are_one_by_one(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new folder" / "out.jsonl"
    assert generate(model, "--prompts", write(tmp_path / "in.jsonl", *ROWS), "--out", out) == 0
    assert "5 completions in" in capsys.readouterr().out
    rows = read_jsonl(out)
    assert [{name: row[name] for name in ("id", "prompt")} for row in rows] == ROWS
    assert generate(model, *(row["prompt"] for row in ROWS), "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert [row["completion"] for row in rows] == [row["completion"] for row in alone]
    assert not work_folder(out).exists()


def test_an_interrupted_file_goes_on_and_is_refused_with_other_settings(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write(tmp_path / "in.jsonl", *ROWS), tmp_path / "out.jsonl"
    engine = completing.Engine

    class Breaking(engine):  # type: ignore[misc, valid-type]
        """Is interrupted after a batch of two."""

        def generate(self, *given: Any, **how: Any) -> Any:
            yield next(super().generate(*given, **how))
            raise KeyboardInterrupt

    loaded = Model(str(model), torch.device("cpu"), How())
    monkeypatch.setattr(completing, "Engine", Breaking)
    decoding = Decoding(batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        complete_file(str(source), out, loaded, decoding, 4)
    assert not out.exists() and len(read_jsonl(work_folder(out) / "samples.jsonl")) == 2
    monkeypatch.setattr(completing, "Engine", engine)
    assert generate(model, "--prompts", source, "--out", out, "--temperature", 1) == 2
    assert "choose another --out" in capsys.readouterr().err
    asked: list[int] = []
    samples = engine._samples
    monkeypatch.setattr(engine, "_samples", lambda *given: asked.append(len(given[-2])) or samples(*given))
    assert complete_file(str(source), out, loaded, decoding, 4) == 5 and sum(asked) == 3
    whole = tmp_path / "whole.jsonl"
    assert generate(model, "--prompts", source, "--out", whole) == 0
    assert whole.read_bytes() == out.read_bytes()


def test_two_processes_do_not_write_the_same_file(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write(tmp_path / "in.jsonl", *ROWS), tmp_path / "out.jsonl"
    work_folder(out).mkdir()
    lock = FileLock(work_folder(out) / LOCK_FILE)
    assert lock.acquire()
    assert generate(model, "--prompts", source, "--out", out) == 2
    printed = capsys.readouterr().err
    assert f"in use by process {os.getpid()}" in printed and printed.count("\n") == 1 and not out.exists()
    lock.release()
    assert generate(model, "--prompts", source, "--out", out) == 0 and not work_folder(out).exists()


def test_columns_conversations_and_stdin(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("question,other\nthe,1\nab,2\n")
    found = []
    for number, arguments in enumerate((
        ["--prompts", tmp_path / "in.csv", "--column", "prompt=question"],
        ["--prompts", "-"],
    )):  # fmt: skip
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "the"}\n{"prompt": "ab"}\n')))
        assert generate(model, *arguments, "--out", tmp_path / f"{number}.jsonl") == 0
        found.append(read_jsonl(tmp_path / f"{number}.jsonl"))
    assert found[0] == found[1] and [row["id"] for row in found[0]] == ["1", "2"]
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "known"}]
    source = write(tmp_path / "chat.jsonl", {"messages": talk}, {"messages": talk[:1]})
    assert generate(model, "--prompts", source, "--out", tmp_path / "chat.out") == 0
    first, second = read_jsonl(tmp_path / "chat.out")
    assert first["prompt"] == second["prompt"] == "User:\nHi\n\nAssistant:\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"no json\n")))
    capsys.readouterr()
    assert generate(model, "--prompts", "-", "--out", tmp_path / "x") == 2
    assert "stdin:1: is no JSON" in capsys.readouterr().err


REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "give prompts, or --prompts FILE with --out FILE"),
    "both": (["a", "--prompts", "in.jsonl", "--out", "x"], "give prompts, or --prompts FILE"),
    "no out": (["--prompts", "in.jsonl"], "belong together"),
    "no file": (["a", "--out", "x"], "belong together"),
    "no mapping": (["--prompts", "in.jsonl", "--out", "x", "--column", "prompt"], "give two names, as prompt=question"),
    "out exists": (["--prompts", "in.jsonl", "--out", "in.jsonl"], "in.jsonl: exists; choose another --out"),
    "missing": (["--prompts", "nowhere.jsonl", "--out", "x"], "nowhere.jsonl: no such file or folder"),
    "no prompts": (["--prompts", "text.jsonl", "--out", "x"], "needs columns `prompt`, or `messages`"),
    "empty": (["--prompts", "empty.jsonl", "--out", "x"], "row 1 has an empty prompt"),
    "twice": (["--prompts", "twice.jsonl", "--out", "x"], "two rows have the same id"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line_and_loses_nothing(
    tmp_path: Path, model: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("in.jsonl"), *ROWS)
    write(Path("text.jsonl"), {"text": "a"})
    write(Path("empty.jsonl"), {"prompt": ""})
    write(Path("twice.jsonl"), ROWS[0], ROWS[0])
    before = sorted(tmp_path.iterdir()), Path("in.jsonl").read_bytes()
    arguments, said = REFUSED[name]
    assert generate(model, *arguments) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1, printed
    assert (sorted(tmp_path.iterdir()), Path("in.jsonl").read_bytes()) == before
