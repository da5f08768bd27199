"""Going on: more steps on a finished run, epochs as a unit beside steps, and how often the data is read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calmctl.baselines.configs import BaselineConfig
from calmctl.cli.main import main
from calmctl.config import load_config
from calmctl.errors import UserError
from calmctl.runs.run import Run, read_run
from calmctl.training.batches import Batches
from calmctl.training.compositions import composition_job
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.examples import Examples
from calmctl.training.job import plan_job
from calmctl.training.settings import TrainSettings
from tests.additions import SETTINGS, examples, folder, tokenizer
from tests.models import llama
from tests.trained import run_baseline, run_composition, run_training

__all__ = ["examples", "folder", "tokenizer"]
SHORT = replace(SETTINGS, steps=6, schedule="constant", save_every=3)


@pytest.fixture(scope="module")
def bases(folder, tokenizer) -> Path:
    """An anchor and an aug beside the data."""
    for seed, name in ((1, "anchor"), (2, "aug")):
        model = llama(seed=seed)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def composition(bases: Path, train: TrainSettings = SHORT, **settings) -> ComposeConfig:
    chosen = {"anchor": str(bases / "anchor"), "augs": (str(bases / "aug"),), "every": 1, "self_check": False}
    return ComposeConfig(**chosen | {"dataset": str(bases / "train.jsonl"), "seed": 3, "train": train} | settings)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model" / "model.safetensors")


def are_equal(one: Run, other: Run) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def losses(run: Run) -> list[tuple]:
    return [(row["step"], row["loss"], row["learning_rate"]) for row in run.read_jsonl() if "loss" in row]


@pytest.mark.parametrize("kind", ["train", "compose", "baseline"])
def test_with_constant_rates_an_extended_run_ends_bit_identical_to_an_uninterrupted_one(bases, tmp_path, kind):
    def trained(out: Path, steps: int) -> Run:
        data, train = str(bases / "train.jsonl"), replace(SHORT, steps=steps)
        if kind == "compose":
            return run_composition(composition(bases, train), out)
        if kind == "train":
            return run_training(TrainConfig(base=str(bases / "anchor"), dataset=data, seed=3, train=train), out)
        return run_baseline(
            BaselineConfig(
                "lora", anchor=str(bases / "anchor"), dataset=data, size=2, dropout=0.1, seed=3, train=train
            ), out,
        )  # fmt: skip

    trained(tmp_path / "extended", 6)
    extended, straight = trained(tmp_path / "extended", 9), trained(tmp_path / "straight", 9)
    assert losses(extended) == losses(straight) and are_equal(extended, straight)
    assert extended.facts["extended"] == [{"train.steps": 6}] and "extended" not in straight.facts
    assert extended.facts["steps"] == straight.facts["steps"] == 9
    assert trained(tmp_path / "extended", 9).facts["finished"] == extended.facts["finished"]


def test_a_schedule_that_decays_goes_on_at_the_rate_of_the_longer_run(bases, tmp_path, capsys):
    decaying = replace(SHORT, schedule="cosine")
    run_composition(composition(bases, decaying), tmp_path / "run")
    longer = composition(bases, replace(decaying, steps=9))
    said = plan_job(composition_job(longer), tmp_path / "run")["extended"]
    assert "from 6 to 9 steps, goes on after step 6" in said and "an uninterrupted run would end elsewhere" in said
    extended, straight = run_composition(longer, tmp_path / "run"), run_composition(longer, tmp_path / "straight")
    short, long = losses(extended), losses(straight)
    assert [row[2] for row in short[6:]] == [row[2] for row in long[6:]]
    assert [row[2] for row in short[:6]] != [row[2] for row in long[:6]] and not are_equal(extended, straight)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| extended from | 6 steps |" in card and "| steps | 9 |" in card


def test_a_run_interrupted_while_the_rates_agree_is_said_to_be_as_if_uninterrupted(bases, tmp_path, monkeypatch):
    holding = replace(SHORT, schedule="warmup_hold_decay", hold_share=0.8)
    append = Run.append_jsonl

    def interrupt(run: Run, row: dict, **options: bool) -> None:
        append(run, row, **options)
        if row["step"] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "append_jsonl", interrupt)
        run_composition(composition(bases, holding), tmp_path / "run")
    longer = composition(bases, replace(holding, steps=8))
    assert "are those of an uninterrupted run" in plan_job(composition_job(longer), tmp_path / "run")["extended"]
    extended, straight = run_composition(longer, tmp_path / "run"), run_composition(longer, tmp_path / "straight")
    assert losses(extended) == losses(straight) and are_equal(extended, straight)


def test_only_larger_steps_extend_a_run_and_nothing_else_may_differ(bases, tmp_path):
    first = run_composition(composition(bases), tmp_path / "run")
    for train, message in (
        (replace(SHORT, steps=5), "train.steps: 6 -> 5"),
        (replace(SHORT, steps=9, lr=0.5), "train.lr: 0.01 -> 0.5"),
        (replace(SHORT, epochs=50.0), "train.epochs: 0.0 -> 50.0"),
    ):
        with pytest.raises(UserError, match=message):
            run_composition(composition(bases, train), tmp_path / "run")
    assert read_run(tmp_path / "run").facts == first.facts
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    with pytest.raises(UserError, match=r"train.steps=6 is finished and has no checkpoint left .*choose another --out"):
        run_composition(composition(bases, replace(SHORT, steps=9)), tmp_path / "run")
    assert read_run(tmp_path / "run").is_complete and (tmp_path / "run" / "model" / "config.json").exists()


def test_a_finished_run_stays_finished_if_its_extension_is_refused(bases, tmp_path, capsys):
    config = TrainConfig(base=str(bases / "anchor"), dataset=str(bases / "train.jsonl"), seed=3, train=SHORT)
    first = run_training(config, tmp_path / "run")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("run.json", "config.yaml")}
    wrong = replace(config, train=replace(SHORT, steps=9, keep_states="memory"))  # which only compositions have
    with pytest.raises(UserError, match="only compositions have states to keep"):
        run_training(wrong, tmp_path / "run")
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}
    assert run_training(config, tmp_path / "run").facts == first.facts
    longer = replace(config, train=replace(SHORT, steps=9))
    assert run_training(longer, tmp_path / "run").facts["extended"] == [{"train.steps": 6}]


# Epochs.


@pytest.mark.parametrize("sampling", ["epochs", "replacement"])
@pytest.mark.parametrize("size", [{"batch_size": 7}, {"batch_tokens": 64}], ids=str)
def test_steps_for_epochs_read_the_data_as_often_as_was_asked(examples: Examples, sampling, size):
    settings = replace(SETTINGS, sampling=sampling, **size)
    for epochs in (0.5, 1, 3):
        steps = Batches(examples, settings, 0, 0).steps_for(epochs)
        batches = Batches(examples, replace(settings, steps=steps), 0, 0)
        assert batches.passes_after(steps - 1) < epochs <= batches.passes == batches.passes_after(steps)
    if sampling == "epochs":
        read = [row for step in range(steps) for row in batches.rows(step)]
        assert sorted(read) == sorted([*range(len(examples))] * 3)


def test_epochs_train_as_the_steps_do_that_they_come_to(bases, tmp_path):
    by_epochs = replace(SHORT, sampling="epochs", epochs=0.4)
    run = run_composition(composition(bases, by_epochs), tmp_path / "epochs")
    assert run.facts["steps"] == 6 and run.facts["passes_over_the_data"] == 0.4
    by_steps = run_composition(composition(bases, replace(SHORT, sampling="epochs")), tmp_path / "steps")
    assert are_equal(run, by_steps)
    assert [row["epoch"] for row in run.read_jsonl()] == [round(step / 15, 4) for step in range(1, 7)]
    assert run_composition(composition(bases, replace(by_epochs, steps=77)), tmp_path / "epochs").is_complete
    longer = run_composition(composition(bases, replace(by_epochs, epochs=0.6)), tmp_path / "epochs")
    assert longer.facts["steps"] == 9 and longer.facts["extended"] == [{"train.epochs": 0.4}]


def test_steps_and_epochs_exclude_each_other_and_either_replaces_that_of_the_preset(tmp_path):
    def train(*overrides: str) -> TrainSettings:
        return load_config(ComposeConfig, "compose/mine", [*overrides], tmp_path).train

    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "mine.yaml").write_text("train:\n  epochs: 2\n")
    assert (train().epochs, train().steps) == (2.0, 0)
    assert (train("train.steps=5").epochs, train("train.steps=5").steps) == (0.0, 5)
    assert train("train.epochs=1").epochs == 1.0
    with pytest.raises(UserError, match="train.steps and train.epochs are given; give one of the two"):
        train("train.steps=5", "train.epochs=1")
    for wrong in ("-1", ".nan", ".inf", "1e308"):
        with pytest.raises(UserError, match="train.epochs="):
            train(f"train.epochs={wrong}")


FILES = {
    "both": "{steps: 5, epochs: 2}",
    "epochs": "{epochs: 2}",
    "stored": "{steps: 0, epochs: 2.0}",
    "steps": "{steps: 7}",
    "none": "{steps: 0}",
    "more": "{epochs: 3}",
}


@pytest.mark.parametrize("names, overrides, found", [
    (["epochs"], [], (0, 2.0)), (["stored"], [], (0, 2.0)), (["epochs", "steps"], [], (7, 0.0)),
    (["epochs", "none"], [], (0, 0.0)), (["epochs", "steps", "more"], [], (0, 3.0)), (["steps", "more"], [], (0, 3.0)),
    (["epochs", "steps"], ["train.epochs=1"], (0, 1.0)), (["more"], ["train.steps=4"], (4, 0.0)),
    (["both"], ["train.steps=4"], (4, 0.0)), (["both"], ["train.epochs=1"], (0, 1.0)), (["both"], [], None),
    (["both", "steps"], [], None), (["epochs", "both"], [], None),
])  # fmt: skip
@pytest.mark.parametrize("is_file", [True, False])
def test_of_steps_and_epochs_the_file_that_is_read_last_decides(tmp_path, names, overrides, found, is_file):
    """Each builds on the one before; one that gives both is refused by its name, unless the command gives either."""
    (tmp_path / "compose").mkdir()
    for base, name in zip(["default", *names], names, strict=False):
        file = tmp_path / "compose" / f"{name}.yaml"
        file.write_text(f"defaults: [{base}@_here_, _self_]\ntrain: {FILES[name]}\n")
    where = {"file": file} if is_file else {}
    if found is None:
        message = r"both.yaml: train.epochs and train.steps are given; give one of the two"
        with pytest.raises(UserError, match=message):
            load_config(ComposeConfig, f"compose/{names[-1]}", overrides, tmp_path, **where)
        return
    train = load_config(ComposeConfig, f"compose/{names[-1]}", overrides, tmp_path, **where).train
    assert (train.steps, train.epochs) == found


def test_the_passes_over_the_data_are_said_before_and_during_a_run(bases, tmp_path, capsys):
    command = ["compose", "--anchor", str(bases / "anchor"), "--aug", str(bases / "aug"), "--out", str(tmp_path / "o")]
    command += ["--data", str(bases / "train.jsonl"), "self_check=false", "train.epochs=1.5", "train.batch_size=19"]
    command += ["train.precision=fp32", "train.log_every=1", "train.warmup_steps=1"]
    assert main([*command, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["steps"], plan["passes_over_the_data"], plan["train"]["epochs"]) == (5, 1.67, 1.5)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passes_over_the_data"] == 1.67
    progress = read_run(tmp_path / "o").progress()
    assert (progress["step"], progress["epoch"]) == (5, progress["epochs"]) and progress["epochs"] == pytest.approx(
        5 / 3
    )
