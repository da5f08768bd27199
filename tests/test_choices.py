"""Multiple choice by likelihood: taken apart as published, and scored as lm-evaluation-harness's own tasks score it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from calmctl.cli.main import main
from calmctl.evaluation.work_files import LIKELIHOODS_FILE, WorkFiles
from data_builders.benchmarks.reasoning import COMMONSENSE, ReasoningProblem
from data_builders.benchmarks.reasoning_rows import read_reasoning
from data_builders.errors import UserError
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from evals.choices import Choice, choices_of, decided
from evals.reasoning import CommonsenseTask, ReasoningRecord
from evals.task import RecordSet
from tests.commonsense_rows import SETS, Made, made, taken, whole_data
from tests.own_tokenizers import base
from tests.tokenizer_families import gpt2_style

ROWS = 200
NEEDED = "the extra `lm-eval` is not installed: pip install 'calmctl[lm-eval]'"
HARNESS_FILES = {
    "boolq": "super_glue/boolq/default.yaml", "piqa": "piqa/piqa.yaml", "social_i_qa": "siqa/siqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml", "winogrande": "winogrande/default.yaml", "ARC-Easy": "arc/arc_easy.yaml",
    "ARC-Challenge": "arc/arc_challenge.yaml", "openbookqa": "openbookqa/openbookqa.yaml",
}  # fmt: skip


def by_harness(
    folder: Path, model: Path, questions: dict[str, list[Made]], **how: Any
) -> dict[str, list[dict[str, Any]]]:
    """Return what the harness's own tasks say of the same questions, by set."""
    lm_eval = pytest.importorskip(
        "lm_eval", reason="the extra `lm-eval` is not installed: pip install 'calmctl[lm-eval]'"
    )
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    names = []
    for which in COMMONSENSE:
        file, theirs = tasks / f"{which.name}.jsonl", HARNESS_FILES[which.name]
        file.write_text("".join(json.dumps(each.original()) + "\n" for each in questions[which.name]))
        settings = {
            "include": str(Path(lm_eval.__file__).parent / "tasks" / theirs),
            "task": f"own_{which.name}",
            "tag": None,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(file)}},
            **dict.fromkeys(("training_split", "validation_split")),
            "test_split": "test",
        }
        (tasks / f"{which.name}.yaml").write_text(yaml.safe_dump(settings))
        names.append(settings["task"])
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        device="cpu",
        log_samples=True,
        bootstrap_iters=0,
        **how,
    )
    for name in names:
        for metric, value in results["results"][name].items():
            if metric.endswith(",none") and "stderr" not in metric:
                results["samples"][name].append({metric.removesuffix(",none"): value})
    return {name.removeprefix("own_"): results["samples"][name] for name in names}


def compare(ours: Path, theirs: dict[str, list[dict[str, Any]]], tolerance: float) -> None:
    """Check that accuracies are equal, and every likelihood and choice."""
    by_set = read_json(ours / "metrics.json")["breakdown"]["by_set"]
    predictions: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(ours / "predictions.jsonl"):
        predictions.setdefault(row["id"].partition("/")[0], []).append(row)
    assert list(by_set) == list(theirs) == list(predictions) == list(SETS)
    for name, rows in theirs.items():
        rows, totals = [row for row in rows if "doc" in row], [row for row in rows if "doc" not in row]
        for total in totals:
            for metric, value in total.items():
                assert by_set[name][metric] == pytest.approx(100 * value, abs=1e-9), (name, metric)
        assert len(rows) == len(predictions[name]) == by_set[name]["n"]
        for row, mine in zip(sorted(rows, key=lambda row: row["doc_id"]), predictions[name], strict=True):
            likelihoods = [float(found[0]) for found in row["filtered_resps"]]
            assert [-bits * math.log(2) for bits in mine["bits"]] == pytest.approx(likelihoods, abs=tolerance), mine[
                "id"
            ]
            assert mine["correct"] == bool(row["acc"])
            if "acc_norm" in row:
                assert mine["correct_per_character"] == bool(row["acc_norm"])


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return ["eval", "commonsense", "--model", str(model), "--data", str(data), "--out", str(out),
            "options.protocol=likelihood", *more]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in SETS:
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "test.json").write_text(json.dumps([each.published() for each in made(name)]))
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tokenizer = gpt2_style()
    base("llama", tokenizer, 1).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_every_score_is_that_of_the_harness(data: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason=NEEDED)
    assert main(command(model, data, tmp_path / "out")) == 0
    questions = {name: made(name) for name in SETS}
    compare(tmp_path / "out", by_harness(tmp_path / "harness", model, questions, batch_size=3), 2e-4)


def test_what_was_measured_before_an_interruption_is_not_measured_again(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, sizes = WorkFiles.append_bits, []

    def counting(self: WorkFiles, found: Any) -> None:
        rows = list(found)
        append(self, rows)
        sizes.append(len(rows))
        if len(sizes) == 3:
            raise KeyboardInterrupt

    settings = ("options.sets=[piqa,openbookqa]", "decoding.batch_size=5")
    assert main(command(model, data, tmp_path / "straight", *settings)) == 0
    monkeypatch.setattr(WorkFiles, "append_bits", counting)
    assert main(command(model, data, tmp_path / "out", *settings)) == 130
    with (tmp_path / "out" / LIKELIHOODS_FILE).open("a") as stream:
        stream.write('{"id": "torn')
    assert main(command(model, data, tmp_path / "out", *settings)) == 0
    assert sizes == [5, 5, 5, 5, 5, 5, 5, 1] and not (tmp_path / "out" / LIKELIHOODS_FILE).exists()
    straight, resumed = (read_jsonl(tmp_path / name / "predictions.jsonl") for name in ("straight", "out"))
    for one, other in zip(straight, resumed, strict=True):
        assert one["bits"] == pytest.approx(other["bits"], abs=1e-3)
        assert {**one, "bits": 0} == {**other, "bits": 0}
    metrics = [read_json(tmp_path / name / "metrics.json")["metrics"] for name in ("straight", "out")]
    assert metrics[0] == metrics[1]


def test_a_report_has_the_figures_by_set_beside_those_of_guesses(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(model, data, tmp_path / "out", "options.sets=[boolq,openbookqa]")) == 0
    by_set = read_json(tmp_path / "out" / "metrics.json")["breakdown"]["by_set"]
    capsys.readouterr()
    assert main(["report", str(tmp_path / "out")]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    of = [f"{by_set[name]['acc']:.1f}" for name in ("boolq", "openbookqa")]
    mean = f"{(by_set['boolq']['acc'] + by_set['openbookqa']['acc']) / 2:.1f}"
    assert ["run", "BoolQ", "OBQA", "mean"] in told and ["out", *of, mean] in told
    assert ["chance", "50.0", "25.0", "37.5"] in told and ["majority", "50.0", "33.3", "41.7"] in told
    # The harness has no acc_norm of BoolQ.
    assert ["run", "OBQA", "mean"] in told and ["chance", "25.0", "25.0"] in told


@pytest.mark.slow
def test_every_score_of_a_real_model_is_that_of_the_harness(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason=NEEDED)
    stored = Path(os.environ.get("CALMCTL_MODELS", "nowhere")) / "smollm2"
    if not stored.exists():
        pytest.skip("CALMCTL_MODELS names no folder with smollm2, a pretrained model")
    # In bfloat16, as it is stored, likelihoods depend on the batch by a tenth.
    model, data = tmp_path / "model", whole_data(tmp_path)
    AutoModelForCausalLM.from_pretrained(stored, dtype=torch.float32).save_pretrained(model)
    AutoTokenizer.from_pretrained(stored).save_pretrained(model)
    assert main(command(model, data, tmp_path / "out", f"limit={ROWS}", "decoding.batch_size=32")) == 0
    questions = {name: taken(data, name)[:ROWS] for name in SETS}
    compare(tmp_path / "out", by_harness(tmp_path / "harness", model, questions, batch_size=32), 1e-2)


@pytest.mark.parametrize("name", SETS)
def test_instructions_are_taken_apart(name: str, data: Path) -> None:
    assert taken(data, name) == made(name)


def test_white_space_belongs_to_the_answer_and_markup_is_dropped(data: Path) -> None:
    first = {name: choices_of(SETS[name], read_reasoning(data, SETS[name])[0][0])[0] for name in SETS}
    assert first["openbookqa"][0] == Choice("One finds water", "  in water", len("in water"))
    assert first["piqa"][0] == Choice("Question: How to water?\nAnswer:", " Do it: water ", len("Do it: water "))
    assert first["hellaswag"][1] == Choice("water Well: Put it down. and", "  sleeps well.", len(" sleeps well."))
    assert first["winogrande"] == [
        Choice(f"water met Bob, so {who}", " said hello to water.", len("said hello to water."))
        for who in ("Ada", "the other")
    ]
    assert [each.continuation for each in first["boolq"]] == [" no", " yes"]
    assert first["boolq"][0].context == "On water.\nIt is so.\nQuestion: is it water?\nAnswer:"


def test_the_likeliest_choice_counts_and_the_first_of_equals() -> None:
    choices = [Choice("", "", 10), Choice("", "", 2), Choice("", "", 4)]
    found = decided(choices, [20.0, 6.0, 6.0])
    assert (found.plain, found.per_character) == (1, 2)


def test_figures_are_means_over_sets_and_nothing_is_written(data: Path) -> None:
    task = CommonsenseTask(sets=("boolq", "openbookqa"), protocol="likelihood")
    records = task.load(data)
    requests = task.requests(records)
    assert [request.num_samples for request in requests] == [0] * (6 * 2 + 6 * 4)
    right = {f"{record.id}#{choices_of(record.kind, record.problem)[1]}" for record in records}
    bits = {request.id: 8.0 * (request.id not in right) + 8 for request in requests}
    # The first question's right choice, "in water", is likeliest, but "Answers." and "down" are as short: "up" is not.
    scores = task.measure(records, bits | {"openbookqa/0#0": 8.0, "openbookqa/0#3": 3.0, "openbookqa/1#1": 7.0})
    by_set = scores.breakdown["by_set"]
    assert (by_set["boolq"]["acc"], by_set["openbookqa"]["acc"]) == (100, pytest.approx(100 * 5 / 6))
    assert scores.metrics == {"acc": pytest.approx(100 * 11 / 12), "acc_norm": by_set["openbookqa"]["acc_norm"]}
    assert "acc_norm" not in by_set["boolq"] and by_set["boolq"]["chance"] == 50
    assert [row["correct_per_character"] for row in scores.samples[6:8]] == [False, True]
    protocol = task.score(records, {}).protocol
    assert task.score(records, {}).metrics == {} and protocol["num_scored"] == 12
    assert protocol["format"] == "lm-evaluation-harness 0.4.13, zero-shot"


def test_choices_of_the_same_words_are_equally_likely() -> None:
    text = SETS["piqa"].head + "How?\n\nSolution1: so\n\nSolution2: so\n\nAnswer format: solution1/solution2"
    problem = ReasoningProblem("piqa/0", text, "solution1", SETS["piqa"].labels)
    record = ReasoningRecord(problem, SETS["piqa"], RecordSet("piqa", (), (), {}))
    scores = CommonsenseTask(protocol="likelihood").measure([record], {"piqa/0#0": 2.00001, "piqa/0#1": 2.0})
    assert scores.metrics == {"acc": 100, "acc_norm": 100}


def test_passages_are_there_for_all_rows_or_none_and_the_protocol_says_which(data: Path) -> None:
    task, file = CommonsenseTask(sets=("boolq",), protocol="likelihood"), data / "boolq" / "test.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([{**row, "passage": None} for row in rows]))
    records = task.load(data)
    assert task.score(records, {}).protocol["format"].endswith("BoolQ without its passages")
    file.write_text(json.dumps([rows[0], *({**row, "passage": ""} for row in rows[1:])]))
    with pytest.raises(UserError, match="boolq: 1 of 6 rows have a passage"):
        task.load(data)
    file.write_text(json.dumps([{**rows[0], "passage": ["a"]}]))
    with pytest.raises(UserError, match="row 1: its passage is no text"):
        task.load(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("bits_per_byte=true",), "bits_per_byte: this evaluation measures the likelihoods of choices"),
        (("handover=answers.jsonl",), "answers.jsonl"),
        (("options.form=clean",), "form=clean: nothing is written where protocol=likelihood"),
        (("options.max_new_tokens=7",), "max_new_tokens=7: nothing is written"),
    ],
)
def test_settings_that_have_no_effect_are_refused(
    settings: tuple[str, ...], message: str, data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(model, data, tmp_path / "out", *settings)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "instruction", "message"),
    [
        ("piqa", "How?\n\nSolution1: a\n\nSolution2: b\n\nAnswer format: solution1/solution2", "does not begin with"),
        ("piqa", SETS["piqa"].head + "How?\n\nSolution1: a\n\nAnswer format: solution1/solution2", "has no Solution2"),
        (
            "winogrande",
            SETS["winogrande"].head + "So.\n\nOption1: a Option2: b Answer format: option1/option2",
            "has no _",
        ),
    ],
)
def test_rows_that_cannot_be_taken_apart_are_one_line(name: str, instruction: str, message: str) -> None:
    labels = SETS[name].labels
    with pytest.raises(UserError, match=rf"{name}/0: .*{message}"):
        choices_of(SETS[name], ReasoningProblem(f"{name}/0", instruction, labels[0], labels))
    with pytest.raises(UserError, match="protocol: 'f1' is not one of llm-adapters, likelihood"):
        CommonsenseTask(protocol="f1")  # type: ignore[arg-type]
