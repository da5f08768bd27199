"""Evaluations: what a result says, several models and several tasks at once, and mistakes."""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import evals.task
from calmctl.cli.main import main
from calmctl.environment import package_versions
from calmctl.errors import UserError
from calmctl.evaluation import models
from calmctl.evaluation.config import EvalConfig
from calmctl.evaluation.evaluating import run_evaluation
from calmctl.inference.settings import Decoding
from calmctl.runs.run import read_run
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from evals import TASKS
from tests.evaluations import command, results
from tests.task_data import write_data, write_models


def test_a_result_says_how_it_came_about(place: Path, straight: Path) -> None:
    result = read_json(straight / "metrics.json")
    requests = [json.loads(line) for line in (straight / "predictions.jsonl").read_text().splitlines()]
    said = result["generation"]
    assert said["first_prompt"] == requests[0]["prompt"] and said["num_samples"] == len(requests)
    assert (said["batch_size"], said["largest_batch"], said["processes"]) == (2, 2, 1)
    assert (said["dtype"], said["device"], said["attention"]) == ("float32", "cpu", "sdpa")
    assert said["decoding"] == result["protocol"]["decoding"] == "sampling(temperature=1.5, top_p=1.0, seed=0)"
    assert said["num_shortened_prompts"] == 0 and said["max_new_tokens"] > 0
    assert result["task_version"] == 1 and result["versions"] == package_versions() and "git_commit" in result
    assert result["data"] == {"source": str(place / "data" / "kv"), "sha256": result["data"]["sha256"], "limit": None}
    assert len(result["data"]["sha256"]) == 64 and result["samples_per_second"] > 0 < result["tokens_per_second"]


def test_results_do_not_depend_on_the_batch_size(place: Path, straight: Path, tmp_path: Path) -> None:
    assert main(command(place, tmp_path / "run", "decoding.temperature=1.5", "decoding.batch_size=64")) == 0
    assert results(tmp_path / "run") == results(straight)


def test_shots_that_do_not_fit_are_counted(place: Path, tmp_path: Path, words: None) -> None:
    (tmp_path / "data.txt").write_text("9\n" + "7 - " * 22 + "1 =\n")
    config = EvalConfig("words", {"shots": 3}, str(tmp_path / "data.txt"), model=str(place / "model"))
    run_evaluation(config, tmp_path / "run")
    assert read_json(tmp_path / "run" / "metrics.json")["generation"]["num_shortened_prompts"] == 1
    strict = EvalConfig("words", {}, str(tmp_path / "data.txt"), model=str(place / "model"), on_overflow="fail")
    with pytest.raises(UserError, match="1 of 2 prompts exceed the model's context of 64"):
        run_evaluation(strict, tmp_path / "strict")


def test_another_models_answers_stand_before_the_questions(
    place: Path, straight: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    given = [f"handover={straight}", "handover_text='[{answer}] '"]
    with monkeypatch.context() as patch:
        patch.setattr(evals.task, "sha256_of", reading := Mock(side_effect=evals.task.sha256_of))
        assert main(command(place, tmp_path / "run", *given)) == 0
    assert reading.call_count == 1  # of the data, which the hand-over and the result name as well
    result = json.loads((tmp_path / "run" / "metrics.json").read_text())
    first = json.loads((straight / "predictions.jsonl").read_text().splitlines()[0])
    asked = json.loads((straight / "metrics.json").read_text())["generation"]["first_prompt"]
    assert first["completion"].strip()
    assert result["generation"]["first_prompt"] == f"[{first['completion'].strip()}] {asked}"
    assert result["protocol"]["handover"] == "[{answer}] "
    part = tmp_path / "part.jsonl"
    part.write_text((straight / "predictions.jsonl").read_text().partition("\n")[0])
    other = tmp_path / "of_other_data"
    other.mkdir()
    (other / "predictions.jsonl").write_text((straight / "predictions.jsonl").read_text())
    told = json.loads((straight / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps({**told, "data": {**told["data"], "sha256": "0"}}))
    for source, message in ((part, "no answer to"), (tmp_path, "predictions.jsonl"), (other, "over other data")):
        assert main(command(place, tmp_path / "other", f"handover={source}")) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1
    assert main(command(place, tmp_path / "other", "handover_text=nothing")) == 2


def test_two_models_answer_together(place: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    data, paths = write_data(tmp_path / "data"), write_models(tmp_path)
    asked = ["eval", "rows", "--data", str(data / "rows"), "--model", str(paths["plain"])]
    loading = Mock(side_effect=models.load_model)
    monkeypatch.setattr(models, "load_model", loading)

    def evaluate(out: str, *settings: str) -> int:
        return main(
            [*asked, "--out", str(tmp_path / out), "decoding.max_new_tokens=4", "bits_per_byte=true", *settings]
        )

    mixed = [f"mix={paths['plain']}", "mix_weight=0.25"]
    assert evaluate("straight") == evaluate("mixed", *mixed) == 0
    assert loading.call_count == 2  # a model that is mixed with itself is there once
    result = read_json(tmp_path / "mixed" / "metrics.json")
    assert (result["protocol"]["read_in"], result["protocol"]["mix_weight"]) == ("bytes, with another model", 0.25)
    assert result["model"]["mixed_with"]["weights_sha256"] == result["model"]["weights_sha256"]
    one, both = (read_json(tmp_path / name / "run.json")["total_parameters"] for name in ("straight", "mixed"))
    assert both == 2 * one
    bits = [read_json(tmp_path / name / "metrics.json")["metrics"]["bits_per_byte"] for name in ("straight", "mixed")]
    assert bits[1] == pytest.approx(bits[0], rel=0.05)
    capsys.readouterr()
    for settings, message in (
        (["mix_weight=1.5"], "mix_weight=1.5 must be between 0 and 1"),
        (["decoding.temperature=1"], "mix: two models write together greedily"),
        (["decoding.num_beams=2"], "mix: two models write together greedily"),
        ([f"mix={tmp_path / 'nowhere'}"], "nowhere"),
        ([f"mix={paths['composed']}"], "is a composition or has adapters; only plain models are mixed"),
        ([f"mix={place / 'model'}"], "does not keep texts"),
    ):
        assert evaluate("refused", *mixed, *settings) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1


def test_a_cap_on_new_tokens_holds_for_every_prompt(place: Path, tmp_path: Path) -> None:
    assert main(command(place, tmp_path / "run", "decoding.max_new_tokens=1")) == 0
    rows = read_jsonl(tmp_path / "run" / "predictions.jsonl")
    assert all(len(row["completion"].split()) <= 1 for row in rows) and any(row["completion"] for row in rows)


def test_several_tasks_write_a_folder_each(
    place: Path, tmp_path: Path, words: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--model", str(place / "model"), "--data", str(place / "data"), "--out", str(tmp_path / "out")]
    assert main(["eval", "words", "kv", *shared, "--limit", "2", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [result["task"] for result in both] == ["words", "kv"]
    for result in both:
        assert read_json(tmp_path / "out" / result["task"] / "metrics.json") == result
    assert both[0]["n"] == 2 and both[0]["protocol"]["shots"] == 2


def test_nothing_is_generated_before_every_task_is_known_to_work(
    place: Path, tmp_path: Path, words: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "humaneval").mkdir(parents=True)
    shutil.copy(place / "data" / "words.txt", tmp_path / "data")
    shared = ["--model", str(place / "model"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(["eval", "words", "humaneval", *shared]) == 2
    assert "add --allow-code-execution" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_evaluates_what_there_is_and_says_what_is_not(
    place: Path, tmp_path: Path, words: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--model", str(place / "model"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    (tmp_path / "data").mkdir()
    assert main(["eval", "all", *shared]) == 2
    assert "nothing there can be evaluated" in capsys.readouterr().err
    shutil.copy(place / "data" / "words.txt", tmp_path / "data")
    assert main(["eval", "all", *shared, "--shots", "1", "options={}"]) == 0
    captured = capsys.readouterr()
    assert f"skipped kv: no data of the task 'kv': {tmp_path}/data/kv is wanted, there is none" in captured.err
    assert "words" in captured.out and [path.name for path in (tmp_path / "out").iterdir()] == ["words"]
    (tmp_path / "data" / "kv").mkdir()
    assert main(["eval", "all", *shared[:-1], str(tmp_path / "new"), "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    assert "skipped kv: " in captured.err and json.loads(captured.out)["task"] == "words"


def test_a_task_that_fails_does_not_end_the_others(
    place: Path, tmp_path: Path, words: None, capsys, monkeypatch
) -> None:
    """It fails while it is scored, or before: a mistake of the program, or of its data."""
    (tmp_path / "data").mkdir()
    shutil.copy(place / "data" / "words.txt", tmp_path / "data")
    shutil.copytree(place / "data" / "kv", tmp_path / "data" / "kv")
    shared = ["eval", "all", "--model", str(place / "model"), "--data", str(tmp_path / "data"), "--json"]
    for error in (UserError("no such key"), ZeroDivisionError("division by zero")):
        with monkeypatch.context() as patch:
            patch.setattr(TASKS["kv"], "score", Mock(side_effect=error))
            out = tmp_path / type(error).__name__
            assert main([*shared, "--out", str(out)]) == 1
        captured = capsys.readouterr()
        failed, done = sorted(json.loads(captured.out), key=lambda row: "error" not in row)
        assert failed == {"task": "kv", "error": str(error)} and done["task"] == "words"
        line = captured.err.splitlines()[-1]
        assert line == f"calmctl: failed: 1 of 2 tasks failed, the others are done: kv ({error})"
        assert ("Traceback" in captured.err) == isinstance(error, ZeroDivisionError)
        assert read_run(out / "kv").status == "failed" and read_run(out / "words").is_complete
        assert main([*shared, "--out", str(out)]) == 0
        capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words_of_the_error"),
    [
        (["eval"], ["Missing argument 'TASK"]),
        (["eval", "decoding.seed=1"], ["no task is named; choose from kv", "all"]),
        (["eval", "nothing"], ["task='nothing' is not one of kv, "]),
        (["eval", "kv"], ["model is not set; give --model"]),
        (["eval", "kv", "--model", "m"], ["dataset is not set; give --data"]),
        (["eval", "kv", "words", "--model", "m"], ["dataset is not set; give --data FOLDER"]),
        (["eval", "kv", "words", "--model", "m", "--data", "{data}", "--shots", "1"],
         ["--shots: the task 'kv' has no such option (its options: none)"]),
        (["eval", "words", "--allow-code-execution"],
         ["--allow-code-execution: the task 'words' has no such option (its options: shots, num_samples, languages)"]),
        (["eval", "words", "options.shot=1"], ["unknown", "shot", "did you mean 'shots'"]),
        (["eval", "words", "--model", "{model}", "--data", "nowhere"], ["nowhere: no such file; give one"]),
        (["eval", "words", "--model", "{data}/kv/tokenizer", "--data", "{data}/words.txt"], ["cannot load"]),
        (["eval", "words", "--model", "{model}", "--data", "{data}/words.txt", "options.num_samples=4"],
         ["4 samples of a prompt are wanted", "decoding.temperature above 0"]),
        (["eval", "words", "--model", "{model}", "--data", "{data}/words.txt", "decoding.top_p=0"], ["top_p=0"]),
        (["score", "words"], ["predictions is not set; give --predictions"]),
        (["score", "kv", "--languages", "de", "--predictions", "x"], ["--languages: the task 'kv' has no such option"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(
    arguments: list[str], words_of_the_error: list[str], place: Path, tmp_path: Path, words: None, capsys: Any
) -> None:
    os.chdir(tmp_path)
    filled = [text.format(data=place / "data", model=place / "model") for text in arguments]
    assert main([*filled, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1, captured.err
    for word in words_of_the_error:
        assert word in captured.err


def test_a_model_without_a_tokenizer_is_one_clear_line(place: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(place / "model", tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    arguments = ["--model", str(tmp_path / "model"), "--data", str(place / "data" / "kv"), "--out", str(tmp_path / "o")]
    assert main(["eval", "kv", *arguments]) == 2
    line = capsys.readouterr().err
    assert "cannot load a tokenizer from" in line and line.count("\n") == 1


def test_tasks_are_listed_with_their_options(words: None, capsys: Any) -> None:
    assert main(["ls", "tasks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["words"]["options"] == {"shots": 2, "num_samples": 1, "languages": ["en"]}
    assert rows["words"]["description"].startswith("Counts words") and rows["kv"]["options"] == {}
    assert main(["ls", "tasks"]) == 0
    assert "shots=2, num_samples=1" in capsys.readouterr().out


def test_decoding_in_the_configuration_reaches_the_engine() -> None:
    with pytest.raises(UserError, match="max_new_tokens"):
        Decoding(max_new_tokens=-1)
