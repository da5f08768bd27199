"""Scoring what was made elsewhere: as ours is, any part of a task, with what scoring needs and no more."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from calmctl.cli.main import main
from calmctl.evaluation.work_files import SAMPLES_FILE
from calmctl.runs.record import METRICS_FILE, PREDICTIONS_FILE
from data_builders.values import read_json
from evals import TASKS, Request
from tests.task_data import write_data

WORKED = {
    "gsm8k": "train.jsonl",
    "mgsm": "exemplars.py",
    "flores": "dev",
    "codexglue": "ruby/train.jsonl",
    "mbpp": "the rows of tasks 2, 3 and 4",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "flores": {"languages": ["fra_Latn"]},
    "humaneval": {"allow_code_execution": True},
    "mbpp": {"allow_code_execution": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("scoring"))


def requests(task: str, data: Path, **more: Any) -> list[Request]:
    built = TASKS[task](**OPTIONS.get(task, {}), **more)
    return built.requests(built.load(data / task))


def score(task: str, data: Path, ids: list[str], out: Path, *more: str) -> int:
    file = out.with_suffix(".jsonl")
    file.write_text("".join(json.dumps({"id": name, "completion": " 1"}) + "\n" for name in ids))
    options = [
        f"options.{name}={json.dumps(value)}".replace('"', "").replace(" ", "")
        for name, value in OPTIONS.get(task, {}).items()
    ]
    return main(
        ["score", task, *options, *more, "--data", str(data / task), "--predictions", str(file), "--out", str(out)]
    )


def fast(*names: str, of: Iterable[str]) -> list[Any]:
    """Return all names as parameters; others than these are slow."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in of]


@pytest.mark.parametrize("task", fast("gsm8k", of=(name for name in TASKS if name != "text")))
def test_any_part_of_a_task_is_scored_and_says_which(task: str, data: Path, tmp_path: Path, capsys: Any) -> None:
    ids = [request.id for request in requests(task, data, **({"shots": 0} if task in WORKED else {}))]
    part = ids[-1:-7:-3] if task != "kv" else ids[:6]
    assert score(task, data, part, tmp_path / "all") == 2
    printed = capsys.readouterr().err
    assert "is missing" in printed and "ids=given" in printed and printed.count("\n") == 1
    assert score(task, data, part, tmp_path / "part", "ids=given") == 0
    result = read_json(tmp_path / "part" / METRICS_FILE)
    rows = (tmp_path / "part" / PREDICTIONS_FILE).read_text().splitlines()
    assert sorted(json.loads(row)["id"] for row in rows) == sorted(part)
    per_record = 3 if task == "kv" else 1
    assert result["protocol"]["subset"]["records"] == len(part) / per_record
    assert result["protocol"]["subset"]["of"] == len(ids) / per_record
    assert score(task, data, [*part, "nonsense"], tmp_path / "none", "ids=given") == 2
    printed = capsys.readouterr().err
    assert (
        "'nonsense' is no request" in printed and repr(sorted(part, key=ids.index)[0]) in printed
    )  # the ids that there are
    if task == "kv":  # a record is scored whole
        assert score(task, data, part[:4], tmp_path / "torn", "ids=given") == 2
        assert repr(part[4]) in capsys.readouterr().err


@pytest.mark.parametrize("task", fast("mgsm", of=WORKED))
def test_scoring_needs_no_worked_examples(task: str, data: Path, tmp_path: Path, caplog: Any) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data / task, folder / task)
    if task == "mbpp":
        lines = (folder / task / "mbpp.jsonl").read_text().splitlines(keepends=True)
        (folder / task / "mbpp.jsonl").write_text("".join(lines[3:]))
    elif (missing := folder / task / WORKED[task]).is_dir():
        shutil.rmtree(missing)
    else:
        missing.unlink()
    ids = [request.id for request in requests(task, folder, shots=0)]
    assert score(task, folder, ids, tmp_path / "bare") == 0
    assert "scored without the worked examples" in caplog.text
    bare = read_json(tmp_path / "bare" / METRICS_FILE)
    assert bare["protocol"]["shots"] is None and bare["protocol"]["exemplars"] is None
    assert score(task, data, ids, tmp_path / "whole") == 0
    assert bare["metrics"] == read_json(tmp_path / "whole" / METRICS_FILE)["metrics"]
    assert score(task, folder, ids, tmp_path / "asked", "--shots", "2") == 2  # what was asked for is not left out


@pytest.fixture
def score_words(place: Path, tmp_path: Path, words: None, capsys: Any) -> Any:
    """Score text as predictions of the made-up task; return exit code and what was printed."""

    def run(text: str, *more: str) -> tuple[int, str]:
        file = tmp_path / "predictions.jsonl"
        file.write_text(text)
        arguments = ["--data", str(place / "data" / "words.txt"), "--predictions", str(file)]
        code = main(["score", "words", *arguments, "--out", str(tmp_path / "score"), "--json", *more])
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err

    return run


def line(name: str, completion: object = "a b") -> str:
    return json.dumps({"id": name, "completion": completion}) + "\n"


WHOLE = "".join(line(f"en/{number}") for number in range(4))


def test_completions_made_elsewhere_are_scored_as_ours_are(place: Path, tmp_path: Path, straight: Path, capsys) -> None:
    shared = ["score", "kv", "--data", str(place / "data" / "kv"), "--predictions"]
    for file in (SAMPLES_FILE, "predictions.jsonl"):
        out = tmp_path / file
        assert main([*shared, str(straight / file), "--out", str(out), "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result == read_json(out / "metrics.json")
        assert result["metrics"] == read_json(straight / "metrics.json")["metrics"]
        assert (out / "predictions.jsonl").read_text() == (straight / "predictions.jsonl").read_text()
        assert result["model"]["predictions"] == str(straight / file) and "generation" not in result
    assert main([*shared, str(straight / SAMPLES_FILE), "--out", str(out)]) == 2
    assert "predictions" in capsys.readouterr().err


def test_options_of_the_task_hold_for_scoring(score_words) -> None:
    both = "".join(line(f"{language}/{number}", "x") for language in ("de", "en") for number in range(2)) * 3
    code, printed = score_words(both, "--languages", "de, en", "--limit", "2", "--shots", "0", "options.num_samples=3")
    assert code == 0
    assert json.loads(printed)["options"] == {"shots": 0, "languages": ["de", "en"], "num_samples": 3}
    assert json.loads(printed)["metrics"] == {"words": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "predictions.jsonl is empty"),
        ("\n\n", "predictions.jsonl is empty"),
        (WHOLE[: len(WHOLE) - 9], "predictions.jsonl:4: is no JSON"),
        (WHOLE + "[1]\n", "predictions.jsonl:5: no JSON object"),
        (WHOLE + line("en/4", 5), "predictions.jsonl:5: no usable 'completion'"),
        (WHOLE + '{"id": "en/1"}\n', "predictions.jsonl:5: no usable 'completion'"),
        (WHOLE + line("en/4"), "predictions.jsonl: completions: 'en/4' is no request of this task"),
        (WHOLE.replace("en/2", "en/1"), "'en/2' is missing"),
        (WHOLE + line("en/1"), "'en/1' has 2, and 1 are wanted"),
    ],
)
def test_predictions_that_do_not_fit_are_one_clear_line(score_words, text: str, message: str, tmp_path: Path) -> None:
    code, printed = score_words(text)
    assert code == 2 and message in printed and printed.count("\n") == 1
    assert not (tmp_path / "score" / "metrics.json").exists()
    code, printed = score_words(WHOLE)  # the folder is as good as new
    assert code == 0 and json.loads(printed)["metrics"] == {"words": 2.0}
