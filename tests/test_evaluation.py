"""Evaluations: resumed after a kill, shared between processes, several at once, and scored without a model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
import torch

from calmctl.cli.main import main
from calmctl.environment import package_versions
from calmctl.errors import UserError
from calmctl.evaluation.evaluating import EvalConfig, _share, run_evaluation
from calmctl.evaluation.work_files import SAMPLES_FILE, WorkFiles
from calmctl.inference.decoding import Decoding
from calmctl.inference.prompt import FittedPrompts
from calmctl.modeling.bases.sources import source_sha256
from calmctl.processes.ranks import Ranks
from calmctl.runs.run import read_run
from data_builders.kv.build import build
from data_builders.rows import read_jsonl
from data_builders.values import read_json
from evals import TASKS, Request, Scores
from tests.kv_settings import SMALL
from tests.models import llama
from tests.task_data import write_data, write_models

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Words:
    """Counts words: a made-up task with shots, several samples and a choice of languages.

    Its data is a text file with a question a line.
    """

    name: ClassVar[str] = "words"
    version: ClassVar[int] = 3
    shots: int = 2
    num_samples: int = 1
    languages: tuple[str, ...] = ("en",)

    def load(self, data: Path, limit: int | None = None) -> list[str]:
        if not data.is_file():
            raise UserError(f"{data}: no such file; give one with a question a line")
        return data.read_text().splitlines()[:limit]

    def requests(self, records: Sequence[str]) -> list[Request]:
        shots = ("solve: 1 + 2 = 3 ", "solve: 12 - 4 = 8 ", "solve: 9 - 9 = 0 ")[: self.shots]
        return [
            Request(f"{language}/{place}", text, 4, ("=",), shots, self.num_samples)
            for language in self.languages
            for place, text in enumerate(records)
        ]

    def score(self, records: Sequence[str], completions: Any) -> Scores:
        samples = [
            {"id": request.id, "completion": text}
            for request in self.requests(records)
            for text in completions[request.id]
        ]
        counts = [len(sample["completion"].split()) for sample in samples]
        return Scores({"words": sum(counts) / len(counts)}, len(records), {}, {"shots": self.shots}, samples)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of two tasks and a tiny model."""
    folder = tmp_path_factory.mktemp("evaluation")
    build(replace(SMALL, num_test_rows=4), folder / "data" / "kv")
    (folder / "data" / "words.txt").write_text("solve: 1 + 2 =\nsolve: 4 =\nsolve: 12 + 33 - 4 =\n9\n")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "data" / "kv" / "tokenizer")
    model = llama(seed=4)
    model.resize_token_embeddings(len(tokenizer))
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.fixture
def words() -> Iterator[None]:
    TASKS["words"] = Words
    yield
    del TASKS["words"]


def command(place: Path, out: Path, *more: str) -> list[str]:
    named = ["eval", "kv", "--model", str(place / "model"), "--data", str(place / "data" / "kv"), "--out", str(out)]
    return [*named, *more]


SAMPLING = ("decoding.temperature=1.5", "decoding.batch_size=2")


def results(out: Path) -> tuple[Any, str, str]:
    """Return what has to be the same however a run came to its end."""
    metrics = read_json(out / "metrics.json")
    assert read_json(out / "run.json")["status"] == "complete"
    return metrics["metrics"], (out / "predictions.jsonl").read_text(), (out / SAMPLES_FILE).read_text()


@pytest.fixture(scope="module")
def straight(place: Path) -> Path:
    """An evaluation that nothing interrupted."""
    out = place / "straight"
    assert main(command(place, out, *SAMPLING)) == 0
    return out


# Results.


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
    place: Path, straight: Path, tmp_path: Path, capsys: Any
) -> None:
    given = [f"handover={straight}", "handover_text='[{answer}] '"]
    assert main(command(place, tmp_path / "run", *given)) == 0
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


def test_two_models_answer_together(place: Path, tmp_path: Path, capsys: Any) -> None:
    data, models = write_data(tmp_path / "data"), write_models(tmp_path)
    asked = ["eval", "rows", "--data", str(data / "rows"), "--model", str(models["plain"])]

    def evaluate(out: str, *settings: str) -> int:
        return main(
            [*asked, "--out", str(tmp_path / out), "decoding.max_new_tokens=4", "bits_per_byte=true", *settings]
        )

    mixed = [f"mix={models['plain']}", "mix_weight=0.25"]
    assert evaluate("straight") == evaluate("mixed", *mixed) == 0
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
        ([f"mix={models['composed']}"], "is a composition or has adapters; only plain models are mixed"),
        ([f"mix={place / 'model'}"], "does not keep texts"),
    ):
        assert evaluate("refused", *mixed, *settings) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1


def test_a_cap_on_new_tokens_holds_for_every_prompt(place: Path, tmp_path: Path) -> None:
    assert main(command(place, tmp_path / "run", "decoding.max_new_tokens=1")) == 0
    rows = read_jsonl(tmp_path / "run" / "predictions.jsonl")
    assert all(len(row["completion"].split()) <= 1 for row in rows) and any(row["completion"] for row in rows)


# Interruptions.


def start(arguments: Sequence[str], launcher: Sequence[str] = (sys.executable,)) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*launcher, "-m", "calmctl", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(place: Path, straight: Path, tmp_path: Path) -> None:
    out, total = tmp_path / "run", len(read_jsonl(straight / SAMPLES_FILE))
    kills, seen = 0, 0
    while kills < 2:
        process = start(command(place, out, *SAMPLING))
        while process.poll() is None and len(read_jsonl(out / SAMPLES_FILE)) < seen + 4:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stdout and process.stdout.read()
        kills, seen = kills + 1, len(read_jsonl(out / SAMPLES_FILE))
        assert 0 < seen < total and not (out / "metrics.json").exists()
        with (out / SAMPLES_FILE).open("a") as stream:
            stream.write('{"id": "torn')
    kept = (out / SAMPLES_FILE).read_text().splitlines()[:seen]
    assert main(command(place, out, *SAMPLING)) == 0
    assert results(out) == results(straight)
    assert set(kept) <= set((out / SAMPLES_FILE).read_text().splitlines())
    assert read_json(out / "run.json")["resumes"] == 2


def test_what_is_done_is_not_generated_again(
    place: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (straight / SAMPLES_FILE).read_text().splitlines(keepends=True)
    made: list[int] = []
    append = WorkFiles.append

    def counting(self: WorkFiles, samples: Any) -> None:
        rows = list(samples)
        made.append(len(rows))
        append(self, rows)
        if len(made) == len(lines) // 2 - 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(WorkFiles, "append", counting)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(config_of(straight), tmp_path / "run")
    assert read_json(tmp_path / "run" / "run.json")["status"] == "interrupted"
    run_evaluation(config_of(straight), tmp_path / "run")
    assert sum(made) == len(lines)
    assert results(tmp_path / "run") == results(straight)
    run_evaluation(config_of(straight), tmp_path / "run")
    assert sum(made) == len(lines)


def config_of(run: Path) -> EvalConfig:
    import yaml

    from calmctl.config import from_dict

    return from_dict(EvalConfig, yaml.safe_load((run / "config.yaml").read_text()))


def test_another_configuration_or_other_requests_are_refused(
    place: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(place, straight, "decoding.temperature=1.5", "decoding.batch_size=3")) == 2
    assert "decoding.batch_size: 2 -> 3" in capsys.readouterr().err
    requests = [Request("a", "1 =", 4), Request("b", "2 =", 4)]
    work = WorkFiles(tmp_path, requests, "m")
    work.append([(0, 0, "x")])
    assert WorkFiles(tmp_path, requests[:1], "m").read() == {(0, 0): "x"}
    for others in ([Request("a", "1 =", 5)], [Request("b", "1 =", 4)], [Request("a", "1 =", 4, shots=("s",))]):
        with pytest.raises(UserError, match="completion of .a. that this model is not asked for"):
            WorkFiles(tmp_path, others, "m").read()
    with pytest.raises(UserError, match="the model, the data or the program has changed"):
        WorkFiles(tmp_path, requests, "another").read()


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "config.json"])
def test_a_model_with_another_tokenizer_or_end_of_text_is_another_model(place: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    before = source_sha256(str(tmp_path / "model"))
    assert before == source_sha256(str(place / "model"))
    file = tmp_path / "model" / name
    file.write_text(file.read_text() + " ")
    assert source_sha256(str(tmp_path / "model")) != before


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_processes_share_prompts_evenly_and_each_once(count: int) -> None:
    lengths = [9, 1, 7, 7, 3, 8, 2, 20, 4, 6]
    prompts = [Request("", "x", 4 if length % 2 else 64) for length in lengths]
    fitted = FittedPrompts(prompts, [array("i", range(length)) for length in lengths])
    shares = [_share(fitted, Ranks(index, count)) for index in range(count)]
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    long = [sum(prompts[place].max_new_tokens == 64 for place in share) for share in shares]
    assert max(long) - min(long) <= 1


def test_work_files_of_several_processes_become_one_without_repeats(tmp_path: Path) -> None:
    requests = [Request(name, "1 =", 4, num_samples=2) for name in "abc"]
    WorkFiles(tmp_path, requests, "m", 1).append([(1, 1, "b1"), (1, 0, "b0")])
    WorkFiles(tmp_path, requests, "m").append([(2, 0, "c0"), (0, 0, "a0"), (1, 1, "again"), (0, 1, "a1"), (2, 1, "c1")])
    assert WorkFiles(tmp_path, requests, "m").read()[1, 1] == "again"
    gathered = WorkFiles(tmp_path, requests, "m").gather()
    assert gathered == {"a": ["a0", "a1"], "b": ["b0", "again"], "c": ["c0", "c1"]}
    assert [path.name for path in tmp_path.iterdir()] == [SAMPLES_FILE]
    assert WorkFiles(tmp_path, requests, "m").gather() == gathered


# Several processes.


@pytest.mark.slow
def test_several_processes_share_the_work(place: Path, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(command(place, out, *SAMPLING, "--json", "--nproc-per-node", "2"))
    while process.poll() is None and not (out / "samples.rank1.jsonl").exists():
        time.sleep(0.02)
    half = len(read_jsonl(straight / SAMPLES_FILE)) // 2
    mine = [row["id"] for row in read_jsonl(straight / SAMPLES_FILE)][1::2]
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert results(out) == results(straight)
    said = read_json(out / "metrics.json")
    assert said["generation"]["processes"] == 2 and printed.count('"kv_math"') >= 1
    assert not list(out.glob("samples.rank*")) and len(mine) == half
    # The same again does nothing, with any number of processes; and a mistake is an error everywhere.
    assert main(command(place, out, *SAMPLING)) == 0
    process = start(command(place, out, "decoding.batch_size=5", "--nproc-per-node=2"))
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and printed.startswith("calmctl: error: ") and printed.count("\n") == 1


@pytest.mark.slow
def test_a_killed_job_of_several_processes_goes_on_with_one(place: Path, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    process = start(command(place, out, *SAMPLING), torchrun)
    while process.poll() is None and not (
        len(read_jsonl(out / SAMPLES_FILE)) > 4 and len(read_jsonl(out / "samples.rank1.jsonl")) > 4
    ):
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in [*children, process.pid]:
        os.kill(int(pid), signal.SIGKILL)
    process.communicate()
    before = read_jsonl(out / "samples.rank1.jsonl")
    assert before and not (out / "metrics.json").exists()
    assert main(command(place, out, *SAMPLING)) == 0
    assert results(out) == results(straight)


# Several tasks.


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


# Scoring without a model.


@pytest.fixture
def score(place: Path, tmp_path: Path, words: None, capsys: Any) -> Any:
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


def test_options_of_the_task_hold_for_scoring(score) -> None:
    both = "".join(line(f"{language}/{number}", "x") for language in ("de", "en") for number in range(2)) * 3
    code, printed = score(both, "--languages", "de, en", "--limit", "2", "--shots", "0", "options.num_samples=3")
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
def test_predictions_that_do_not_fit_are_one_clear_line(score, text: str, message: str, tmp_path: Path) -> None:
    code, printed = score(text)
    assert code == 2 and message in printed and printed.count("\n") == 1
    assert not (tmp_path / "score" / "metrics.json").exists()
    code, printed = score(WHOLE)  # the folder is as good as new
    assert code == 0 and json.loads(printed)["metrics"] == {"words": 2.0}


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
