"""Multiple choice by likelihood: taken apart as published, and scored as lm-evaluation-harness's own tasks score it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from calmctl.cli.main import main
from calmctl.evaluation.work_files import LIKELIHOODS_FILE, WorkFiles
from data_builders.benchmarks.reasoning import COMMONSENSE, ReasoningProblem, read_reasoning, taken_apart
from data_builders.errors import UserError
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from evals import Request
from evals.choices import Choice, choices_of, decided
from evals.reasoning import CommonsenseTask
from tests.commonsense_rows import ROWS, SETS, WORDS, hub_row, made_rows, whole_data
from tests.own_tokenizers import base
from tests.tokenizer_families import gpt2_style

NEEDED = "the extra `lm-eval` is not installed: pip install 'calmctl[lm-eval]'"
HARNESS_FILES = {
    "boolq": "super_glue/boolq/default.yaml", "piqa": "piqa/piqa.yaml", "social_i_qa": "siqa/siqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml", "winogrande": "winogrande/default.yaml", "ARC-Easy": "arc/arc_easy.yaml",
    "ARC-Challenge": "arc/arc_challenge.yaml", "openbookqa": "openbookqa/openbookqa.yaml",
}  # fmt: skip


def by_harness(folder: Path, model: Path, data: Path, limit: int, **how: Any) -> dict[str, list[dict[str, Any]]]:
    """Return what the harness's own tasks say of the same rows, by set."""
    lm_eval = pytest.importorskip(
        "lm_eval", reason="the extra `lm-eval` is not installed: pip install 'calmctl[lm-eval]'"
    )
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    names = []
    for which in COMMONSENSE:
        problems, _ = read_reasoning(data, which)
        file, theirs = tasks / f"{which.name}.jsonl", HARNESS_FILES[which.name]
        file.write_text("".join(json.dumps(hub_row(problem)) + "\n" for problem in problems[:limit]))
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
        (tmp_path / "data" / name / "test.json").write_text(json.dumps(made_rows(name)))
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
    compare(tmp_path / "out", by_harness(tmp_path / "harness", model, data, 10, batch_size=3), 2e-4)


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


def test_likelihoods_of_another_choice_are_refused(tmp_path: Path) -> None:
    requests = [Request("a#0", "1 =", 0, num_samples=0, reference=text) for text in (" 2", " 3")]
    WorkFiles(tmp_path, requests[:1], "model").append_bits([(0, 1.5)])
    assert WorkFiles(tmp_path, requests[:1], "model").read_bits() == {0: 1.5}
    with pytest.raises(UserError, match="holds a likelihood of 'a#0' that this model is not asked for"):
        WorkFiles(tmp_path, requests[1:], "model").read_bits()


@pytest.mark.slow
def test_every_score_of_a_real_model_is_that_of_the_harness(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason=NEEDED)
    model = Path(os.environ.get("CALMCTL_MODELS", "nowhere")) / "smollm2"
    if not model.exists():
        pytest.skip("CALMCTL_MODELS names no folder with smollm2, a pretrained model")
    data = whole_data(tmp_path)
    assert main(command(model, data, tmp_path / "out", "limit=200", "decoding.batch_size=32")) == 0
    compare(tmp_path / "out", by_harness(tmp_path / "harness", model, data, 200, batch_size=32), 0.05)


@pytest.mark.parametrize("name", SETS)
def test_instructions_are_taken_apart(name: str, data: Path) -> None:
    problems, _ = read_reasoning(data, SETS[name])
    for word, problem in zip(WORDS, problems, strict=True):
        question = taken_apart(SETS[name], problem)
        rebuilt = ROWS[name][0].format(word, word)
        assert rebuilt.startswith(SETS[name].head + question.text)
        assert all(choice in rebuilt for choice in question.choices)
        assert len(question.choices) == (0 if name == "boolq" else len(problem.choices))
        assert all(word in text for text in (question.text, "".join(question.choices) or word) if name != "winogrande")


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
    task = CommonsenseTask(sets=("boolq", "piqa"), protocol="likelihood")
    records = task.load(data)
    requests = task.requests(records)
    assert [request.num_samples for request in requests] == [0] * len(requests) == [0] * 24
    right = {f"{record.id}#{choices_of(record.kind, record.problem)[1]}" for record in records}
    bits = {request.id: float(request.id not in right) for request in requests}
    # Of the first two questions of PIQA the other choice is likelier, but not per character.
    scores = task.measure(records, bits | {"piqa/0#0": 1.1, "piqa/0#1": 1.09, "boolq/0#1": 2.0})
    assert scores.metrics["acc"] == pytest.approx(100 * 5 / 6) and scores.metrics["acc_norm"] <= 100
    assert "acc_norm" not in scores.breakdown["by_set"]["boolq"] and scores.breakdown["by_set"]["boolq"]["chance"] == 50
    assert task.score(records, {}).metrics == {}


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
