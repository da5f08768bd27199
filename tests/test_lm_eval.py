"""EleutherAI's lm-evaluation-harness runs a composed model as it runs any other; tasks and data are local files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from calmctl.modeling.composition import compose
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.models import composed, llama
from tests.own_tokenizers import base
from tests.tokenizer_families import gpt2_style, llama3_style

pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed: pip install 'calmctl[lm-eval]'")

ROWS = [(f"solve: {a} + {b} =", [f" {a + b}", f" {a - b}", f" {a}"]) for a, b in ((3, 4), (9, 2), (5, 5), (8, 1))]
TASKS = {
    "sums": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "sums_written": {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["solve"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


@pytest.fixture(scope="module", params=["one tokenizer", pytest.param("two tokenizers", marks=pytest.mark.slow)])
def folder(tmp_path_factory, request) -> Path:
    """Two tasks with their data, an anchor, its composition untrained and with bridges that matter."""
    folder = tmp_path_factory.mktemp("harness")
    (folder / "rows.json").write_text("".join(json.dumps({"prompt": p, "choices": c}) + "\n" for p, c in ROWS))
    (folder / "tasks").mkdir()
    for name, settings in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}}}
        task = {"task": name, "test_split": "test", **data, **settings}
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(task))
    tokenizer = other = build_word_tokenizer(["apple", "pear"], ["solve:"])
    anchor, aug = llama(seed=1), llama(seed=2, width=16, heads=2, kv_heads=1)
    if request.param == "two tokenizers":
        tokenizer, other = gpt2_style(), llama3_style()
        anchor, aug = base("llama", tokenizer, 1), base("llama", other, 2)
    for name, model, its in (("anchor", anchor, tokenizer), ("aug", aug, other)):
        model.save_pretrained(folder / name)
        its.save_pretrained(folder / name)
    bases = str(folder / "anchor"), str(folder / "aug")
    for name, model in (("untrained", compose(*bases, every=1)), ("trained", composed(*bases))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def evaluate(folder):
    """Return what the harness says of every sample, for a model of the folder."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)

    def run(name: str) -> dict[str, list]:
        torch.manual_seed(0)
        results = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(folder / name), "trust_remote_code": True, "dtype": "float32"},
            tasks=list(TASKS), task_manager=tasks, batch_size=2, device="cpu", log_samples=True, bootstrap_iters=0,
        )  # fmt: skip
        return {task: [row["resps"] for row in rows] for task, rows in results["samples"].items()}

    return run


def test_zero_bridges_score_exactly_what_the_anchor_scores(folder, evaluate):
    anchor, untrained, trained = (evaluate(name) for name in ("anchor", "untrained", "trained"))
    assert anchor.keys() == TASKS.keys() and all(len(rows) == len(ROWS) for rows in anchor.values())
    assert untrained == anchor
    assert trained["sums"] != anchor["sums"] and trained["sums_written"] != anchor["sums_written"]


def test_its_command_line_needs_no_import_of_calmctl(folder, evaluate):
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf",
        "--model_args", f"pretrained={folder / 'trained'},trust_remote_code=True,dtype=float32",
        "--tasks", "sums,sums_written", "--include_path", str(folder / "tasks"),
        "--device", "cpu", "--batch_size", "2", "--output_path", str(folder / "out"), "--log_samples",
    ]  # fmt: skip
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_DATASETS_CACHE": str(folder / "data")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    assert "sums_written" in done.stdout
    expected = evaluate("trained")
    for task in TASKS:
        (file,) = (folder / "out").rglob(f"samples_{task}_2*.jsonl")
        assert [json.loads(line)["resps"] for line in file.read_text().splitlines()] == _as_text(expected[task])


def _as_text(value: object) -> object:
    """Return responses as the harness writes them: every number and truth value as text."""
    return [_as_text(item) for item in value] if isinstance(value, list | tuple) else str(value)
