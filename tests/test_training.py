"""Training: what is saved, what is refused, and that an interrupted run ends as a straight one does."""

import itertools
import json
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from calmctl.errors import CalmctlError, UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.runs.run import Run, read_run
from calmctl.training import optimizer, trainer
from calmctl.training.batches import Batches
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.optimizer import MuonWithAdamW, build_optimizer
from calmctl.training.settings import CurriculumSettings, TrainSettings
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.additions import SETTINGS, examples, folder, tokenizer
from tests.models import llama
from tests.trained import run_composition, run_training

__all__ = ["examples", "folder", "tokenizer"]
MODEL = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def test_muon_takes_matrices_and_adamw_the_rest():
    model = llama()
    optimizer = build_optimizer(model, SETTINGS)
    assert isinstance(optimizer, MuonWithAdamW)
    muon, adamw = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all("proj" in names[i] for i in muon)
    assert {names[i] for i in adamw} >= {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}
    assert muon | adamw == names.keys()


def test_an_optimizer_state_continues_where_it_was():
    ids = torch.arange(2, 14).view(2, 6)

    def steps(model, optimizer, count):
        for _ in range(count):
            model(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    straight, resumed = llama(), llama()
    one = build_optimizer(straight, SETTINGS)
    steps(straight, one, 4)
    two = build_optimizer(resumed, SETTINGS)
    steps(resumed, two, 2)
    three = build_optimizer(resumed, SETTINGS)
    three.load_state_dict(two.state_dict())
    steps(resumed, three, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def train_config(folder: Path, **settings) -> TrainConfig:
    course = CurriculumSettings("num_operands", 2, 3, threshold=0.001, held_back_kind="context", held_back_until=3)
    train = replace(SETTINGS, curriculum=course, **settings)
    return TrainConfig(str(folder / "tokenizer"), model=MODEL, dataset=str(folder / "train.jsonl"), seed=3, train=train)


@pytest.fixture
def bases(folder, tmp_path) -> tuple[str, str]:
    """Two runs that saved untrained models."""
    for name, seed in (("anchor", 1), ("aug", 2)):
        run_training(replace(train_config(folder, steps=0), seed=seed), tmp_path / name)
    return str(tmp_path / "anchor"), str(tmp_path / "aug")


def run_job(kind: str, folder: Path, bases: tuple[str, str], out: Path) -> Run:
    if kind == "train":
        return run_training(train_config(folder), out)
    config = ComposeConfig(bases[0], (bases[1],), every=1, dataset=str(folder / "train.jsonl"), seed=3, train=SETTINGS)
    return run_composition(config, out)


def rows_without_times(run: Run) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in run.read_jsonl()]


@pytest.mark.parametrize("kind", ["train", "compose"])
@pytest.mark.parametrize("stop_after", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_bit_identical_to_a_straight_one(
    folder, bases, tmp_path, monkeypatch, kind, stop_after
):
    straight = run_job(kind, folder, bases, tmp_path / "straight")
    append = Run.append_jsonl

    def interrupt(run: Run, row: dict, **options: bool) -> None:
        append(run, row, **options)
        if row["step"] == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "append_jsonl", interrupt)
        run_job(kind, folder, bases, tmp_path / "resumed")
    assert json.loads((tmp_path / "resumed" / "run.json").read_text())["status"] == "interrupted"
    resumed = run_job(kind, folder, bases, tmp_path / "resumed")
    assert rows_without_times(resumed) == rows_without_times(straight)
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("straight", "resumed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1])


def test_a_complete_run_is_not_repeated_and_another_configuration_is_refused(folder, bases, tmp_path):
    first = run_job("train", folder, bases, tmp_path / "out")
    again = run_job("train", folder, bases, tmp_path / "out")
    assert again.is_complete and again.facts["finished"] == first.facts["finished"]
    with pytest.raises(UserError, match="train.lr"):
        run_training(replace(train_config(folder), train=replace(SETTINGS, lr=0.5)), tmp_path / "out")
    assert run_training(train_config(folder, sharding="fsdp"), tmp_path / "out").is_complete


def test_composition_leaves_its_bases_untouched_on_disk_and_in_memory(folder, bases, tmp_path):
    files = [Path(base) / "model" / "model.safetensors" for base in bases]
    before = [file.read_bytes() for file in files]
    run = run_job("compose", folder, bases, tmp_path / "out")
    assert [file.read_bytes() for file in files] == before
    bridges = load_file(tmp_path / "out" / "model" / "model.safetensors")
    trained = [tensor for name, tensor in bridges.items() if "_stream" not in name]
    assert sum(tensor.numel() for tensor in trained) == run.facts["trainable_parameters"]
    assert any(tensor.abs().sum() > 0 for name, tensor in bridges.items() if "output" in name)


def test_a_model_can_be_trained_further(folder, bases, tmp_path):
    config = replace(train_config(folder), model={}, base=bases[0], tokenizer="")
    run = run_training(config, tmp_path / "further")
    start = load_file(Path(bases[0]) / "model" / "model.safetensors")
    end = load_file(tmp_path / "further" / "model" / "model.safetensors")
    assert run.is_complete and any(not torch.equal(start[name], end[name]) for name in start)
    assert json.loads((tmp_path / "further" / "model" / "config.json").read_text())["use_cache"] is True


def test_models_with_different_tokenizers_are_refused(folder, bases, tmp_path):
    build_word_tokenizer(["other"], ["substitute:", "solve:"]).save_pretrained(tmp_path / "tokens")
    config = replace(train_config(folder, steps=0), tokenizer=str(tmp_path / "tokens"))
    run_training(config, tmp_path / "other")
    with pytest.raises(UserError, match="different tokenizers"):
        run_job("compose", folder, (bases[0], str(tmp_path / "other")), tmp_path / "out")


@pytest.mark.parametrize("config, message", [
    (TrainConfig(), "give --base"),
    (TrainConfig(model=MODEL), "dataset is not set"),
    (TrainConfig(dataset="x.jsonl", model=MODEL), "x.jsonl: no such file"),
    (TrainConfig("nowhere", dataset="rows.jsonl", model=MODEL), "cannot load a tokenizer"),
    (TrainConfig(dataset="rows.jsonl", base="nowhere"), "cannot load"),
])  # fmt: skip
def test_bad_training_settings_are_one_clear_error(tmp_path, monkeypatch, config, message):
    (tmp_path / "rows.jsonl").write_text('{"text": "solve:"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run_training(config, tmp_path / "out")


def test_a_diverged_run_fails_instead_of_saving_garbage(folder, tmp_path):
    config = replace(train_config(folder, lr=1e30, adamw_lr=1e30, grad_clip=0.0), seed=1)
    with pytest.raises(CalmctlError, match=r"step \d+: the loss is .* after rows \d.*lower train.lr"):
        run_training(config, tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_divergence_names_the_step_and_the_rows_and_leaves_the_last_good_checkpoint(
    folder, examples, tmp_path, monkeypatch
):
    """The loss is not finite at step 5; rows of the log come at 3 (with the checkpoint) and 4, and at 6 it shows."""
    settings = replace(SETTINGS, log_every=4, batch_size=2)
    completion_loss = trainer.completion_loss
    calls = itertools.count()  # before the first step a pass counts FLOPs
    monkeypatch.setattr(trainer, "completion_loss", lambda *a: completion_loss(*a) * (nan if next(calls) == 5 else 1))
    rows = np.unique(examples.rows[Batches(examples, settings, 3, 0).rows(4)])
    with pytest.raises(CalmctlError, match=f"step 5: the loss is nan after rows {', '.join(map(str, rows))} of the"):
        run_training(replace(train_config(folder), train=settings), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["checkpoint-3"]
    assert read_run(tmp_path / "out").status == "failed"


def test_a_base_that_changes_fails_the_run(folder, bases, tmp_path, monkeypatch):
    forward = ComposedModelForCausalLM.forward

    def spoil(model: ComposedModelForCausalLM, *arguments, **options):
        with torch.no_grad():
            next(model.anchor.parameters())[0, 0] += 1e-3
        return forward(model, *arguments, **options)

    monkeypatch.setattr(ComposedModelForCausalLM, "forward", spoil)
    with pytest.raises(CalmctlError, match="the anchor changed during the training, although it is frozen"):
        run_job("compose", folder, bases, tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_bases_have_no_dropout_and_bridges_have_while_they_are_trained(folder, bases, tmp_path, monkeypatch):
    seen = []
    forward = ComposedModelForCausalLM.forward

    def look(model: ComposedModelForCausalLM, *arguments, **options):
        parts = (model.anchor, model.augs, model.bridges)
        seen.append([{module.training for module in part.modules()} for part in parts])
        return forward(model, *arguments, **options)

    monkeypatch.setattr(ComposedModelForCausalLM, "forward", look)
    run_job("compose", folder, bases, tmp_path / "out")
    trained = seen[-1 - SETTINGS.steps :]  # after the self-check
    assert len(trained) == 1 + SETTINGS.steps and all(modes == [{False}, {False}, {True}] for modes in trained)


def test_counts_of_the_data_are_in_the_run(folder, tmp_path):
    config = replace(train_config(folder), model=MODEL | {"max_position_embeddings": 8})
    with pytest.raises(UserError, match="longer than the model's context of 8 tokens .*the longest, row"):
        run_training(config, tmp_path / "out")
    dropped = replace(config, train=replace(SETTINGS, on_long_example="drop", steps=1))
    counts = run_training(dropped, tmp_path / "out").facts["examples"]
    assert counts["rows"] == 60 and 0 < counts["dropped_long"] == 60 - counts["examples"]


def test_one_process_trains_on_one_gpu_where_it_sees_several(tmp_path, monkeypatch):
    # Else the Trainer makes a matrix of the loss, for DataParallel, which is not used.
    class OnTwoGPUs(TrainingArguments):
        def __post_init__(self):
            super().__post_init__()
            self._n_gpu = 2

    monkeypatch.setattr(optimizer, "TrainingArguments", OnTwoGPUs)
    assert optimizer.training_arguments(SETTINGS, tmp_path, seed=0, is_validated=False).n_gpu == 1


def test_unknown_architectures_are_one_clear_error(folder, tmp_path):
    with pytest.raises(UserError, match="model_type='lama'"):
        run_training(replace(train_config(folder), model={"model_type": "lama"}), tmp_path / "out")
    for unfit in ({"num_attention_heads": 4, "num_key_value_heads": 3}, {"hidden_size": 15}):
        with pytest.raises(UserError, match="model"):
            run_training(replace(train_config(folder), model=MODEL | unfit), tmp_path / "unfit")


@pytest.mark.parametrize("settings", [
    {"precision": "int8"}, {"sharding": "zero"},
    {"optimizer": "sgd"}, {"steps": -1}, {"batch_size": 6, "accumulation": 4}, {"save_every": 0}, {"batch_tokens": -1},
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainSettings(**settings)
