"""Multiple choice by likelihood: taken apart as published, and scored as lm-evaluation-harness's own tasks score it."""

from __future__ import annotations

import bz2
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from calmctl.cli.main import main
from data_builders.benchmarks.reasoning import COMMONSENSE, ReasoningProblem, read_reasoning, taken_apart
from data_builders.errors import UserError
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from evals.choices import Choice, choices_of, decided
from evals.reasoning import CommonsenseTask
from tests.own_tokenizers import base
from tests.real_data import real_data
from tests.tokenizer_families import gpt2_style

SETS = {each.name: each for each in COMMONSENSE}
ROWS = {
    "boolq": ("Please answer the following question with true or false, question: is it {}?\n\n", "true/false"),
    "piqa": (
        "Please choose the correct solution to the question: How to {}?\n\nSolution1: Do it: {} \n\n"
        "Solution2: Wait, or not.\n\n",
        "solution1/solution2",
    ),
    "social_i_qa": (
        "Please choose the correct answer to the question: Ada did {}. Why?\n\n"
        "Answer1: for fun Answer2: it rained, {} Answer3: no reason\n\n",
        "answer1/answer2/answer3",
    ),
    "hellaswag": (
        "Please choose the correct ending to complete the given sentence: "
        "{} [header] Well: Put  it down [title] and\n\n"
        "Ending1: goes. Ending2: [step] sleeps  well. Ending3: is {}. Ending4: asks.\n\n",
        "ending1/ending2/ending3/ending4",
    ),
    "winogrande": (
        "Please choose the correct answer to fill in the blank to complete the given sentence: "
        "{} met Bob, so _ said hello to {}.\n\nOption1: Ada Option2: the other ",
        "option1/option2",
    ),
    "ARC-Easy": (
        "Please choose the correct answer to the question: What is {}?\n\n"
        "Answer1: {} Answer2: a stone Answer3: two\n\n",
        "answer1/answer2/answer3",
    ),
    "ARC-Challenge": (
        "Please choose the correct answer to the question: Which?\n1) {}\n2) ice\n\n"
        "Answer1: 1, {} Answer2: a  stone\n\n",
        "answer1/answer2",
    ),
    "openbookqa": (
        "Please choose the correct answer to the question: One finds {} \n\n"
        "Answer1: in {} Answer2: Answers. Answer3: up Answer4: down\n\n",
        "answer1/answer2/answer3/answer4",
    ),
}
WORDS = ("water", "the Answer", "a 2nd thing", "rain: snow", "an old, long, winding street", "x")
NEEDED = "the extra `lm-eval` is not installed: pip install 'calmctl[lm-eval]'"
HARNESS_FILES = {
    "boolq": "super_glue/boolq/default.yaml", "piqa": "piqa/piqa.yaml", "social_i_qa": "siqa/siqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml", "winogrande": "winogrande/default.yaml", "ARC-Easy": "arc/arc_easy.yaml",
    "ARC-Challenge": "arc/arc_challenge.yaml", "openbookqa": "openbookqa/openbookqa.yaml",
}  # fmt: skip


def made_rows(name: str) -> list[dict[str, str]]:
    text, listed = ROWS[name]
    labels = listed.split("/")
    rows = [
        {
            "instruction": text.format(word, word) + f"Answer format: {listed}",
            "answer": labels[place % len(labels)],
            **({"passage": f"On {word}.\nIt is so."} if name == "boolq" else {}),
        }
        for place, word in enumerate(WORDS)
    ]
    return rows


def hub_row(problem: ReasoningProblem) -> dict[str, Any]:
    """Return a row with the columns of the set's own data, which the harness reads."""
    name = problem.id.partition("/")[0]
    question = taken_apart(SETS[name], problem)
    text, choices = question.text, list(question.choices)
    place = problem.choices.index(problem.answer)
    if name == "boolq":
        assert text.endswith("?")
        return {"passage": problem.passage, "question": text[:-1], "label": 1 - place}
    if name == "piqa":
        return {"goal": text, "sol1": choices[0], "sol2": choices[1], "label": place}
    if name == "social_i_qa":
        context, _, rest = text.rpartition(" ")
        answers = dict(zip(("answerA", "answerB", "answerC"), choices, strict=True))
        return {"context": context, "question": rest, **answers, "label": str(place + 1)}
    if name == "hellaswag":
        label, _, context = text.partition(": ")
        return {"activity_label": label, "ctx_a": context, "ctx_b": "", "endings": choices, "label": str(place)}
    if name == "winogrande":
        return {"sentence": text, "option1": choices[0], "option2": choices[1], "answer": str(place + 1)}
    letters = list("ABCDE"[: len(choices)])
    asked = "question_stem" if name == "openbookqa" else "question"
    return {asked: text, "choices": {"text": choices, "label": letters}, "answerKey": letters[place]}


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


def test_every_score_is_that_of_the_harness(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason=NEEDED)
    tokenizer = gpt2_style()
    base("llama", tokenizer, 1).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert main(command(tmp_path / "model", data, tmp_path / "out")) == 0
    compare(tmp_path / "out", by_harness(tmp_path / "harness", tmp_path / "model", data, 10, batch_size=3), 2e-4)


@pytest.mark.slow
def test_every_score_of_a_real_model_is_that_of_the_harness(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason=NEEDED)
    model = Path(os.environ.get("CALMCTL_MODELS", "nowhere")) / "smollm2"
    if not model.exists():
        pytest.skip("CALMCTL_MODELS names no folder with smollm2, a pretrained model")
    data = whole_data(tmp_path)
    assert main(command(model, data, tmp_path / "out", "limit=200", "decoding.batch_size=32")) == 0
    compare(tmp_path / "out", by_harness(tmp_path / "harness", model, data, 200, batch_size=32), 0.05)


def whole_data(folder: Path) -> Path:
    """Return a folder with the published files, HellaSwag's made from its plain text, and BoolQ's with a passage."""
    published, data = real_data("llm_adapters"), folder / "data"
    data.mkdir()
    for name in SETS:
        if name not in ("hellaswag", "boolq"):
            (data / name).symlink_to(published / name)
    lines = bz2.open(published / "hellaswag" / "hellaswag_val_full.txt.bz2", "rt").read().split("\n")
    rows = [
        {
            "instruction": f"{SETS['hellaswag'].head}{lines[at]}\n\n"
            + " ".join(f"Ending{number}: {lines[at + 1 + number]}" for number in range(1, 5))
            + "\n\nAnswer format: ending1/ending2/ending3/ending4",
            "answer": f"ending{int(lines[at + 1]) + 1}",
        }
        for at in range(0, 200 * 6, 6)
    ]
    questions, _ = read_reasoning(published, SETS["boolq"])
    passages = [
        {"instruction": each.instruction, "answer": each.answer, "passage": f"This is about question {place}."}
        for place, each in enumerate(questions[:200])
    ]
    for name, written in (("hellaswag", rows), ("boolq", passages)):
        (data / name).mkdir()
        (data / name / "test.json").write_text(json.dumps(written))
    return data


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
