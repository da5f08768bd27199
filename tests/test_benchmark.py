"""The benchmarks of composed models run through and report every case."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import run_script
from tests.own_tokenizers import PAIRS, base

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "composition.py"
GENERATION, TRAINING = SCRIPT.with_name("generation.py"), SCRIPT.with_name("training.py")


@pytest.mark.slow
def test_the_quick_benchmark_reports_every_case(tmp_path):
    file = tmp_path / "figures.json"
    printed = run_script(SCRIPT, "--quick", "--json", file)
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
    run_script(GENERATION, "--quick", "--json", file)
    rows = json.loads(file.read_text())["results"]
    beside = [row for row in rows if row["case"] not in ("shared", "lengths", "uniform")]
    assert [(row["model"], row["case"]) for row in beside] == [
        (model, case) for model in ("plain", "composed") for case in ("zero-shot", "few-shot", "stops")
    ]
    assert all(row["same_texts"] == 1 for row in rows if "same_texts" in row) and len(rows) > len(beside)


@pytest.mark.slow
def test_the_training_benchmark_compares_the_program_with_a_loop(tmp_path):
    file = tmp_path / "figures.json"
    run_script(TRAINING, "--quick", "--precisions", "fp32", "--steps", 10, "--json", file)
    results = json.loads(file.read_text())["results"]
    assert {row["case"] for row in results} == {"speed", "memory", "kept"} and all(row["value"] > 0 for row in results)


@pytest.mark.slow
def test_the_benchmark_of_own_tokenizers_reports_every_case(tmp_path):
    script, file = SCRIPT.with_name("own_tokenizers.py"), tmp_path / "figures.json"
    run_script(script, "--quick", "--json", file)
    results = json.loads(file.read_text())["results"]
    assert [row["case"] for row in results] == ["decode", "decode", "train", "unaided"]
    assert all(row["per_token"] > 0 and row["whole"] > 0 and 0 <= row["cutting"] < 1 for row in results)


@pytest.mark.slow
def test_a_version_is_compared_with_another_one(tmp_path):
    script, file = SCRIPT.with_name("versions.py"), tmp_path / "figures.json"
    command = [sys.executable, script, "--quick", "--other", SCRIPT.parents[1], "--json", file]
    subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(file.read_text())["results"]
    assert [row["case"] for row in results] == ["decode 1", "decode 8", "train"]
    assert all(0.2 < row["value"] < 5 for row in results)


@pytest.mark.slow
def test_ways_to_cut_are_compared_once_and_kept(tmp_path):
    for name, make, kind in zip(("anchor", "aug"), PAIRS["gpt2-llama3"], ("llama", "gemma2"), strict=True):
        base(kind, make(), 0).save_pretrained(tmp_path / name)
        make().save_pretrained(tmp_path / name)
    for code in ("deu", "fra", "pol", "ind", "swh", "por", "nld", "swe", "ces", "ron", "spa", "ita", "tur"):
        lines = (f"fox {number}\tThe fox has {number} dogs.\n" for number in range(20))
        (tmp_path / f"{code}-eng.tsv.gz").write_bytes(gzip.compress("".join(lines).encode()))
    file = tmp_path / "figures.json"
    places = ["--anchor", tmp_path / "anchor", "--aug", tmp_path / "aug", "--data", tmp_path]
    command = [*places, "--task", "translation", "--json", file, "--steps", 10, "--every", 5]
    printed = [run_script(SCRIPT.with_name("segmentation.py"), *command) for _ in range(2)]
    results = {row["way"]: row for row in json.loads(file.read_text())["results"]}
    assert list(results) == ["own", "chunks", "prompt"] and printed[0] == printed[1]
    assert all(row["composed"]["10"]["all"] > 0 and len(row["losses"]) == 10 for row in results.values())
    assert len({row["anchor_alone"]["all"] for row in results.values()}) == 1
    assert results["own"]["replaced"] > 0 == results["chunks"]["replaced"] == results["prompt"]["replaced"]
