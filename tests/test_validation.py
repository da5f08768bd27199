"""Validation: what is measured, when training ends, which weights are kept, and that all of it can be resumed."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from calmctl.cli.output import print_run
from calmctl.errors import CalmctlError, UserError
from calmctl.modeling.bridge import BridgeConfig
from calmctl.modeling.loss import IGNORED
from calmctl.processes.ranks import Ranks
from calmctl.runs.record import read_run
from calmctl.runs.run import Run
from calmctl.training import validation as validation_module
from calmctl.training.batches import Batches
from calmctl.training.configs import ComposeConfig
from calmctl.training.examples import load_examples
from calmctl.training.prepared import hold_out
from calmctl.training.settings import TrainSettings
from calmctl.training.validation import Validation, stays_worse
from tests.sums import sums_config, write_sums
from tests.trained import run_composition, run_training

# A rate at which the loss on other sums soon gets worse.
OVERFITTING = {"lr": 0.3, "eval_every": 2, "steps": 24, "save_every": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    write_sums(folder)
    return folder


def validations(run: Run) -> dict[int, float]:
    return {row["step"]: row["validation_loss"] for row in run.read_jsonl() if "validation_loss" in row}


def loss_of(model_folder: Path, file: Path) -> tuple[float, float]:
    """Return the loss and the exact match of a saved model on a file, computed one example at a time."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    examples = load_examples(file, AutoTokenizer.from_pretrained(model_folder), TrainSettings())
    total, labels, exact = 0.0, 0, 0
    for index in range(len(examples)):
        ids = torch.from_numpy(examples.example(index)).long()[None]
        begin = examples.completion_starts[index]
        with torch.no_grad():
            logits = model(ids).logits[0, begin - 1 : -1]
        targets = ids[0, begin:]
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        labels += len(targets)
        exact += bool((logits.argmax(-1) == targets).all())
    return total / labels, exact / len(examples)


def test_the_loss_is_that_of_the_saved_model(folder, tmp_path):
    run = run_training(sums_config(folder, validate=True), tmp_path / "out")
    assert list(validations(run)) == [3, 6, 8]
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    loss, exact = loss_of(tmp_path / "out" / "model", folder / "validation.jsonl")
    assert result["metrics"]["validation_loss"] == pytest.approx(loss, rel=1e-5)
    assert result["metrics"]["validation_exact_match"] == pytest.approx(exact, abs=1e-4)
    assert result["n"] == 10 and result["step"] == 8
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    examples = load_examples(
        folder / "validation.jsonl", AutoTokenizer.from_pretrained(run.path / "model"), TrainSettings()
    )
    labels = int((examples.lengths - examples.completion_starts).sum())
    bits = loss * labels / math.log(2) / sum(len(row["completion"].encode()) for row in rows)
    assert run.read_jsonl()[-1]["validation_bits_per_byte"] == pytest.approx(bits, rel=1e-5)


def test_validating_changes_nothing_about_the_training(folder, tmp_path):
    with_it = run_training(sums_config(folder, validate=True, eval_every=1), tmp_path / "with")
    without = run_training(sums_config(folder), tmp_path / "without")
    losses = [[row["loss"] for row in run.read_jsonl() if "loss" in row] for run in (with_it, without)]
    assert losses[0] == losses[1]
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("with", "without")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_best_weights_are_kept_and_patience_ends_the_training(folder, tmp_path):
    run = run_training(sums_config(folder, True, patience=3, keep_best=True, **OVERFITTING), tmp_path / "out")
    losses = validations(run)
    best = min(losses, key=losses.__getitem__)
    assert list(losses)[-1] == best + 3 * 2 < 24
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["step"] == metrics["best_step"] == best
    assert losses[best] == pytest.approx(loss_of(tmp_path / "out" / "model", folder / "validation.jsonl")[0], rel=1e-5)


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory) -> Run:
    """A run that ended early, at a checkpoint, with the weights of an earlier one."""
    config = sums_config(folder, True, patience=2, keep_best=True, **(OVERFITTING | {"save_every": 2}))
    return run_training(config, tmp_path_factory.mktemp("straight") / "out")


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", ["in the middle", "at the last validation", "at the end"])
def test_an_interrupted_training_stops_and_keeps_as_a_straight_one(folder, straight, tmp_path, monkeypatch, stop_at):
    config = sums_config(folder, True, patience=2, keep_best=True, **(OVERFITTING | {"save_every": 2}))
    append, write, end = Run.append_jsonl, Run.write_json, max(validations(straight))

    def interrupt_training(run: Run, row: dict, **rest: bool) -> None:
        append(run, row, **rest)
        last = stop_at == "at the last validation" and row["step"] == end and "validation_loss" in row
        if last or (stop_at == "in the middle" and row["step"] == 3):
            raise KeyboardInterrupt

    def interrupt_at_the_end(run: Run, name: str, value: object) -> None:
        if stop_at == "at the end" and name == "metrics.json":
            raise KeyboardInterrupt
        write(run, name, value)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "append_jsonl", interrupt_training)
        patch.setattr(Run, "write_json", interrupt_at_the_end)
        run_training(config, tmp_path / "out")
    resumed = run_training(config, tmp_path / "out")
    assert validations(resumed) == validations(straight)
    results, weights = zip(
        *(
            ((path / "metrics.json").read_text(), load_file(path / "model" / "model.safetensors"))
            for path in (straight.path, resumed.path)
        ),
        strict=True,
    )
    assert results[0] == results[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_without_its_best_checkpoint_a_training_keeps_the_last_weights_and_says_so(folder, straight, tmp_path, caplog):
    config = sums_config(folder, True, patience=2, keep_best=True, **(OVERFITTING | {"save_every": 2}))
    shutil.copytree(straight.path, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "model")
    (tmp_path / "out" / "run.json").write_text(json.dumps(straight.facts | {"status": "interrupted"}))
    losses = validations(straight)
    best, last = min(losses, key=losses.__getitem__), max(losses)
    shutil.rmtree(tmp_path / "out" / "checkpoints" / f"checkpoint-{best}")
    run_training(config, tmp_path / "out")
    assert f"checkpoint-{best}, the best checkpoint, is lost" in caplog.text
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["step"], metrics["best_step"]) == (last, best)
    assert metrics["metrics"]["validation_loss"] == losses[last]
    found = loss_of(tmp_path / "out" / "model", folder / "validation.jsonl")[0]
    assert found == pytest.approx(losses[last], rel=1e-5)


def test_processes_take_turns_with_all_examples(folder, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    settings = TrainSettings(batch_size=6, accumulation=1)
    batches = Batches(load_examples(folder / "validation.jsonl", tokenizer, settings), settings, 0, 0)
    found, turns = [], set()
    for index in range(3):  # ten examples by two: the third process has nothing in the second turn
        monkeypatch.setattr(validation_module, "current_ranks", lambda index=index: Ranks(index, 3))
        mine = list(Validation(batches))
        turns.add(len(mine))
        found += [row[row != IGNORED].tolist() for batch in mine for row in batch["labels"] if (row != IGNORED).any()]
    examples = batches.examples
    asked = [examples.example(row)[examples.completion_starts[row] :].tolist() for row in range(len(examples))]
    assert turns == {2} and sorted(found) == sorted(asked)


def compose_config(folder, tmp_path, train, anchor_steps=0, **settings) -> ComposeConfig:
    """Return the training of bridges between two models that this makes."""
    for name, steps in (("anchor", anchor_steps), ("aug", 0)):
        if not (tmp_path / name).exists():
            run_training(sums_config(folder, steps=steps), tmp_path / name)
    config = sums_config(folder, **train)
    return ComposeConfig(
        str(tmp_path / "anchor"), (str(tmp_path / "aug"),), dataset=config.dataset, every=1,
        validation=str(folder / "validation.jsonl"), train=config.train, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("zero_init", [True, False])
def test_a_composition_is_compared_with_its_anchor(folder, tmp_path, zero_init, capsys):
    bridge = BridgeConfig(zero_init=zero_init)
    config = compose_config(folder, tmp_path, {"steps": 4, "eval_every": 2, "keep_best": True}, bridge=bridge)
    run = run_composition(config, tmp_path / "out")
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    losses, measured = validations(run), result["metrics"]
    alone, _ = loss_of(tmp_path / "anchor" / "model", folder / "validation.jsonl")
    assert measured["anchor_loss"] == pytest.approx(alone, rel=1e-5)
    assert measured["start_validation_loss"] == losses[0] and measured["last_validation_loss"] == losses[4]
    assert (losses[0] == pytest.approx(alone, rel=1e-5)) == zero_init
    assert measured["best_validation_loss"] == min(losses[2], losses[4]) == measured["validation_loss"]
    print_run(run, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    shown = (f"anchor alone {alone:.4g}", f"at the start {losses[0]:.4g}", f"last {losses[4]:.4g}")
    assert all(each in said for each in shown), said
    assert ("they do not help it" in said) == (measured["validation_loss"] >= alone)


@pytest.mark.slow
def test_bridges_that_stay_worse_than_the_anchor_end_in_one_line(folder, tmp_path):
    train = {"steps": 20, "eval_every": 1, "lr": 0.1, "warmup_steps": 0, "save_every": 2}
    config = compose_config(folder, tmp_path, train, anchor_steps=60)
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(
        "".join(json.dumps({"prompt": f"solve: {row} + 1 =", "completion": " ab"}) + "\n" for row in range(9))
    )
    config = replace(config, dataset=str(wrong))
    with pytest.raises(CalmctlError, match=r"^step \d+: the validation loss is .* of the anchor alone; try a lower"):
        run_composition(config, tmp_path / "out")
    ended = max(row["step"] for row in read_run(tmp_path / "out").log() if "validation_loss" in row)
    assert 3 <= ended < 20
    with pytest.raises(CalmctlError, match=f"step {ended}"):  # resumed, it knows what it knew
        run_composition(config, tmp_path / "out")
    going_on = replace(config, train=replace(config.train, stop_when_worse=False, steps=4))
    assert run_composition(going_on, tmp_path / "on").is_complete


def test_worse_for_good_is_far_above_and_not_on_the_way_back():
    assert stays_worse([6.0, 5.0, 5.1, 5.0], 4.0, 4.0)
    assert not stays_worse([5.0, 5.0], 4.0, 4.0)
    assert not stays_worse([6.0, 5.5, 5.0], 4.0, 4.0)
    assert not stays_worse([4.3, 4.3, 4.3], 4.0, 4.0)
    assert not stays_worse([3.9, 5.0, 5.0, 5.0], 4.0, 4.0)  # the best is kept, and is better
    assert not stays_worse([5.0, 5.0, 5.0], 4.0, 6.0)  # it began far above and has come down
    assert not stays_worse([0.003, 0.003, 0.003], 0.001, 0.001)


@pytest.mark.slow
@pytest.mark.parametrize("aug_reads", ["all", "prompt"])
def test_a_composition_is_validated_as_it_decodes(folder, tmp_path, aug_reads):
    composed = compose_config(folder, tmp_path, {"steps": 4, "eval_every": 2}, aug_reads=aug_reads)
    run = run_composition(composed, tmp_path / "out")
    assert list(validations(run)) == [0, 2, 4]
    from calmctl import ComposedModelForCausalLM

    model = ComposedModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    examples = load_examples(
        folder / "validation.jsonl", AutoTokenizer.from_pretrained(tmp_path / "anchor" / "model"), TrainSettings()
    )
    total, count = 0.0, 0
    for index in range(len(examples)):
        ids = torch.from_numpy(examples.example(index)).long()[None]
        labels = ids.clone()
        labels[:, : examples.completion_starts[index]] = -100
        with torch.no_grad():
            total += model(ids, labels=labels, num_items_in_batch=1).loss.item()
        count += int((labels != -100).sum())
    assert validations(run)[4] == pytest.approx(total / count, rel=1e-5)


def test_a_share_is_held_out(folder, tmp_path):
    run_training(sums_config(folder, validation_share=0.25, steps=1), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["n"] == 10
    examples = load_examples(
        folder / "train.jsonl", AutoTokenizer.from_pretrained(folder / "tokenizer"), TrainSettings()
    )
    trained, held_out = hold_out(examples, 0.25, seed=3)
    parts = [tuple(part.example(index)) for part in (trained, held_out) for index in range(len(part))]
    assert len(hold_out(examples, 0.999, seed=3)[0]) == 1
    assert len(hold_out(examples, 0.25, seed=3, limit=4)[1]) == 4
    assert len(held_out) == 10 and sorted(parts) == sorted(tuple(examples.example(index)) for index in range(40))


@pytest.mark.parametrize("settings", [{"patience": 2}, {"keep_best": True}])
def test_what_needs_a_validation_says_so(folder, tmp_path, settings):
    with pytest.raises(UserError, match=f"train.{next(iter(settings))} needs a validation"):
        run_training(sums_config(folder, **settings), tmp_path / "out")
