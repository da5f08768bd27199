"""The benchmark of composed models runs through and reports every case."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "composition.py"
GENERATION, TRAINING = SCRIPT.with_name("generation.py"), SCRIPT.with_name("training.py")


@pytest.mark.slow
def test_the_quick_benchmark_reports_every_case(tmp_path):
    file = tmp_path / "figures.json"
    printed = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--json", file], capture_output=True, text=True, check=True
    ).stdout
    figures = json.loads(file.read_text())
    cases = {(row["case"], row.get("batch") or row.get("labels") or row.get("step")) for row in figures["results"]}
    assert cases == {
        ("decode", 1), ("decode", 2), ("prefill", 1), ("train", "all"), ("train", "quarter"), ("floor", "all"),
        ("memory", "all"), ("growth", None), ("augs", "decode"), ("augs", "prefill"),
    }  # fmt: skip
    assert all(row["value"] > 0 for row in figures["results"] if row["case"] != "growth")
    assert len(printed.splitlines()) == len(figures["results"]) + 2
    growth = next(row for row in figures["results"] if row["case"] == "growth")
    assert growth["left"]["tensors"] <= 0 and figures["environment"]["torch"]


@pytest.mark.slow
def test_the_quick_benchmark_of_generation_reports_every_case_and_the_same_texts(tmp_path):
    pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed: pip install 'calmctl[lm-eval]'")
    file = tmp_path / "figures.json"
    subprocess.run([sys.executable, GENERATION, "--quick", "--json", file], capture_output=True, text=True, check=True)
    rows = json.loads(file.read_text())["results"]
    beside = [row for row in rows if row["case"] != "shared"]
    assert [(row["model"], row["case"]) for row in beside] == [
        (model, case) for model in ("plain", "composed") for case in ("zero-shot", "few-shot", "stops")
    ]
    assert all(row["same_texts"] == 1 for row in beside) and len(rows) > len(beside)


@pytest.mark.slow
def test_the_training_benchmark_compares_the_program_with_a_loop(tmp_path):
    file = tmp_path / "figures.json"
    subprocess.run([sys.executable, TRAINING, "--quick", "--json", file], capture_output=True, text=True, check=True)
    results = json.loads(file.read_text())["results"]
    assert {row["case"] for row in results} == {"speed", "memory", "kept"} and all(row["value"] > 0 for row in results)
