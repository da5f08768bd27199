"""What makes plans quick: modules that they do not load, and files and weights that they read once or not at all."""

import gc
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from calmctl.experiments.planning.trainings import Planner
from calmctl.experiments.stage import stage_in
from calmctl.modeling.bases.locating import source_sha256
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.tokenizers import backend
from calmctl.processes.garbage import without_collection
from calmctl.training import compositions
from calmctl.training.compositions import composition_job
from calmctl.training.configs import ComposeConfig
from calmctl.training.job import plan_job
from calmctl.training.settings import TrainSettings
from tests import tokenizer_families as families
from tests.own_tokenizers import base
from tests.structure import ROOT
from tests.task_data import write_models

# The Trainer with what it imports, adapters of peft, plots: only runs and reports need them.
NOT_FOR_PLANS = ("transformers.trainer", "transformers.trainer_utils", "datasets", "peft", "matplotlib", "evaluate")
PLANS = (
    "train aug --preset further --base models/plain --data rows.jsonl train.steps=1 train.packing=false",
    "compose --anchor models/plain --aug models/plain --data rows.jsonl train.steps=1 every=1",
    "baseline lora --anchor models/plain --data rows.jsonl --parameters 2000 train.steps=1",
    "eval rows --model models/plain --data rows.jsonl",
    "reproduce kv --preset smoke",
)
CODE = f"""
import sys
from calmctl.cli.main import main
for plan in {PLANS!r}:
    assert main([*plan.split(), "--out", "out", "--dry-run"]) == 0, plan
    loaded = [name for name in {NOT_FOR_PLANS!r} if name in sys.modules]
    assert not loaded, (plan, loaded)
"""


def write_rows(file: Path) -> Path:
    rows = [{"prompt": f"{row} plus one?", "completion": f" {row + 1}"} for row in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_plans_load_no_trainer_no_adapters_and_no_plots(tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    write_rows(tmp_path / "rows.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def config(tmp_path: Path) -> ComposeConfig:
    """Return a composition of two models with different tokenizers."""
    for seed, (name, make) in enumerate({"anchor": families.gpt2_style, "aug": families.llama3_style}.items()):
        base("llama", make(), seed).save_pretrained(tmp_path / name)
        make().save_pretrained(tmp_path / name)
    data = write_rows(tmp_path / "rows.jsonl")
    names = str(tmp_path / "anchor"), (str(tmp_path / "aug"),)
    return ComposeConfig(*names, dataset=str(data), every=1, train=TrainSettings(steps=2, batch_size=2))


@pytest.fixture
def tokenizers_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each tokenizer is loaded, by its folder."""
    found, load = Counter[str](), AutoTokenizer.from_pretrained

    def counted(source, *arguments, **more):
        found[str(source)] += 1
        return load(source, *arguments, **more)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    return found


def test_a_composition_reads_each_tokenizer_once_for_plan_and_model(config, tokenizers_read, tmp_path):
    job = composition_job(config)
    assert "reading" in plan_job(job, tmp_path / "out")
    job.build(job.plan().tokenizer)
    assert {source: tokenizers_read[source] for source in config.sources()} == dict.fromkeys(config.sources(), 1)


def test_the_plan_of_an_experiment_reads_each_tokenizer_once(config, tokenizers_read, tmp_path):
    planner = Planner(lambda _: 0)
    plans = [planner.plan(stage_in(tmp_path, name, ("compose",), config)) for name in ("one", "other")]
    assert plans[0] is not None and plans[1] is not None and plans[0].flops == plans[1].flops
    assert tokenizers_read == dict.fromkeys(config.sources(), 1)


def test_a_plan_of_a_new_run_hashes_neither_weights_nor_tokenizers(config, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(compositions, "source_sha256", lambda source: hashed.append(source) or source_sha256(source))
    monkeypatch.setattr(backend, "tokenizer_sha256", lambda stored: hashed.append("a tokenizer") or "0")
    job = composition_job(config)
    plan_job(job, tmp_path / "out")
    assert not hashed
    assert job.inputs and {*hashed} == {*config.sources()}


def test_a_text_that_decides_needs_no_vocabulary(monkeypatch):
    tokenizer = families.llama3_style()
    expected = prompt_ids(tokenizer, ["a b"])
    monkeypatch.setattr(type(tokenizer), "get_vocab", lambda _: pytest.fail("the whole vocabulary was read"))
    assert prompt_ids(tokenizer, ["a b"]) == expected and expected[0][0] == tokenizer.bos_token_id


def test_garbage_is_looked_for_again_after_a_block_whatever_ends_it():
    with pytest.raises(ValueError, match="wrong"), without_collection():
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ValueError("wrong")
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()  # who switched it off may switch it on
    finally:
        gc.enable()
