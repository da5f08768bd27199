"""A training that tests interrupt: its data, its settings, and what has to come out of it all the same."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calmctl.modeling.bridge import BridgeConfig
from calmctl.runs.run import Run, read_run
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.settings import CurriculumSettings, TrainSettings
from data_builders.kv.tokenizers import build_word_tokenizer
from data_builders.row_files import read_jsonl
from tests.trained import run_composition, run_training

MODEL = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "attention_dropout": 0.1,
}  # fmt: skip
# Rows of the log and checkpoints fall on different steps.
SETTINGS = TrainSettings(
    steps=40, batch_size=4, accumulation=2, optimizer="muon", lr=0.01, schedule="cosine", warmup_steps=10,
    save_every=5, log_every=3, curriculum=CurriculumSettings("num_operands", 2, 3, threshold=0.3),
)  # fmt: skip
Config = TrainConfig | ComposeConfig


def run_job(config: Config, out: Path) -> Run:
    return run_training(config, out) if isinstance(config, TrainConfig) else run_composition(config, out)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("data")
    build_word_tokenizer(["ab"], ["solve:"]).save_pretrained(folder / "tokenizer")
    generator = random.Random(0)
    with (folder / "train.jsonl").open("w") as stream:
        for _ in range(40):
            numbers = [generator.randrange(1, 30) for _ in range(generator.choice([2, 3]))]
            row = {"prompt": f"solve: {' + '.join(map(str, numbers))} =", "completion": f" {sum(numbers) % 2}"}
            stream.write(json.dumps(row | {"meta": {"num_operands": len(numbers)}}) + "\n")
    return TrainConfig(
        str(folder / "tokenizer"), model=MODEL, dataset=str(folder / "train.jsonl"), seed=3, train=SETTINGS
    )


@pytest.fixture(scope="module")
def straight(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing disturbs."""
    return run_training(config, tmp_path_factory.mktemp("straight") / "run")


@pytest.fixture
def stopped(straight: Run, tmp_path: Path) -> Path:
    """The same run, stopped before it wrote its model."""
    shutil.copytree(straight.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    (tmp_path / "run/run.json").write_text(json.dumps(straight.facts | {"status": "interrupted"}))
    return tmp_path / "run"


@pytest.fixture(scope="module", params=["train", "packed", "compose"])
def job(request: pytest.FixtureRequest, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Config:
    validated = replace(SETTINGS, validation_share=0.2, eval_every=3, keep_best=True)
    if request.param == "train":
        return replace(config, train=validated)
    if request.param == "packed":
        corpus = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
        texts = [row["prompt"] + row["completion"] for row in read_jsonl(Path(config.dataset))]
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        packed = replace(validated, curriculum=CurriculumSettings(), packing=True, context=24)
        return replace(config, dataset=str(corpus), train=packed)
    bases = tmp_path_factory.mktemp("bases")
    for name, seed in (("anchor", 1), ("aug", 2)):
        run_training(replace(config, seed=seed, train=TrainSettings(steps=0)), bases / name)
    bridge = BridgeConfig(dropout=0.1)
    return ComposeConfig(
        str(bases / "anchor"),
        (str(bases / "aug"),),
        every=1,
        bridge=bridge,
        dataset=config.dataset,
        seed=3,
        train=SETTINGS,
    )


def assert_same(path: Path, other: Path) -> None:
    """Compare what does not depend on time: the rows of the log, the parameters, and what a validation found."""
    times = ("seconds", "tokens_per_second")
    logs = ([{k: v for k, v in row.items() if k not in times} for row in read_run(p).log()] for p in (path, other))
    assert next(logs) == next(logs)
    results = [(p / "metrics.json").read_text() for p in (path, other) if (p / "metrics.json").exists()]
    assert len(results) in (0, 2) and results[:1] == results[1:]
    first, second = (load_file(p / "model/model.safetensors") for p in (path, other))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
