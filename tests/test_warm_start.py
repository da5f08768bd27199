"""Warm starts: a training that begins with the bridges or adapters of an earlier one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from calmctl.baselines.configs import BaselineConfig
from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.modeling.bridge import BridgeConfig
from calmctl.training.configs import TrainConfig
from data_builders.files import sha256_of
from tests.additions import SETTINGS, folder, tokenizer
from tests.test_going_on import SHORT, bases, composition, weights
from tests.trained import run_baseline, run_composition, run_training

__all__ = ["bases", "folder", "tokenizer"]
NONE = replace(SHORT, steps=0)


def adapters(bases: Path, method: str = "lora", **settings) -> BaselineConfig:
    places = {"anchor": str(bases / "anchor"), "dataset": str(bases / "train.jsonl")}
    return BaselineConfig(method, **places | {"size": 2, "seed": 3, "train": SHORT} | settings)


@pytest.fixture(scope="module")
def trained(bases, tmp_path_factory) -> Path:
    """Trained bridges (`calm`) and adapters (`lora`)."""
    out = tmp_path_factory.mktemp("trained")
    run_composition(composition(bases), out / "calm")
    run_baseline(adapters(bases), out / "lora")
    return out


def of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("source", ["calm", "calm/model", "calm/checkpoints/checkpoint-3"])
def test_bridges_begin_as_those_of_a_run_a_model_or_a_checkpoint(bases, trained, tmp_path, source):
    run = run_composition(composition(bases, NONE, init_from=str(trained / source), seed=8), tmp_path / "run")
    expected = of(trained / "calm" / "model" if source == "calm" else trained / source)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(run).items())
    file = trained / ("calm/model" if source == "calm" else source) / "model.safetensors"
    assert run.facts["inputs"]["init_from"] == sha256_of(file)


def test_training_goes_on_from_there_and_keeps_the_streams_that_were_calibrated(bases, trained, tmp_path):
    warm = run_composition(composition(bases, init_from=str(trained / "calm"), seed=8), tmp_path / "warm")
    before, after = of(trained / "calm" / "model"), weights(warm)
    same = {name for name in before if torch.equal(before[name], after[name])}
    buffers = {name for name in before if "mean" in name or "scale" in name or "deviation" in name}
    assert buffers and buffers <= same < before.keys()
    cold = run_composition(composition(bases, seed=8), tmp_path / "cold")
    assert warm.read_jsonl()[0]["loss"] < cold.read_jsonl()[0]["loss"]
    assert "| init from | calm |" in (tmp_path / "warm" / "model" / "README.md").read_text()


def test_adapters_begin_as_those_of_a_run(bases, trained, tmp_path):
    run = run_baseline(adapters(bases, init_from=str(trained / "lora"), train=NONE, seed=8), tmp_path / "run")
    assert all(torch.equal(tensor, of(trained / "lora" / "model")[name]) for name, tensor in weights(run).items())


def test_another_start_is_another_run(bases, trained, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (trained / "calm" / "model").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = composition(bases, init_from=str(copy))
    run_composition(config, tmp_path / "run")
    assert run_composition(config, tmp_path / "run").is_complete
    save_file({name: tensor + 1 for name, tensor in of(copy).items()}, copy / "model.safetensors")
    for other, message in ((config, "other inputs .changed: init_from."), (composition(bases), "init_from: ")):
        with pytest.raises(UserError, match=message):
            run_composition(other, tmp_path / "run")


@pytest.mark.parametrize("settings, message", [
    ({"every": 2}, r"init_from=.*calm: connections there: \[\[\[0, 0\].* here: "),
    ({"bridge": BridgeConfig(rotary=True)}, "bridge.rotary there: False, here: True"),
    ({"bridge": BridgeConfig(num_heads=2)}, "bridge.num_heads there: 4, here: 2"),
    ({"init_from": "lora"}, "init_from=.*lora: holds a calm_adapted model, and calm is needed"),
    ({"init_from": "anchor"}, "init_from=.*anchor: holds a llama model, and calm is needed"),
    ({"init_from": "bases"}, "it has no model.safetensors .give a run, a model folder or a checkpoint"),
    ({"init_from": "nowhere/at/all"}, "nowhere/at/all: no such folder"),
])  # fmt: skip
def test_bridges_of_another_form_are_refused_before_weights_are_read(bases, trained, tmp_path, settings, message):
    given = {"lora": str(trained / "lora"), "anchor": str(bases / "anchor"), "bases": str(bases)}
    source = settings.get("init_from", str(trained / "calm"))
    with pytest.raises(UserError, match=message):
        run_composition(composition(bases, **settings | {"init_from": given.get(source, source)}), tmp_path / "run")


@pytest.mark.parametrize("settings, message", [
    ({"method": "parallel"}, "method there: lora, here: parallel"),
    ({"size": 3}, r"there: 2, here: 3"),
    ({"where": "attention"}, "modules there: "),
    ({"scaling": 5.0}, "scaling there: 0.0, here: 5.0"),
    ({"method": "full", "size": 0}, "init_from: method full trains the whole anchor"),
])  # fmt: skip
def test_adapters_of_another_form_are_refused(bases, trained, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run_baseline(adapters(bases, **{"init_from": str(trained / "lora")} | settings), tmp_path / "run")


def test_a_whole_model_is_trained_further_by_its_base(bases, trained, tmp_path):
    config = TrainConfig(base=str(bases / "anchor"), dataset=str(bases / "train.jsonl"), init_from="x", train=SETTINGS)
    with pytest.raises(UserError, match="init_from=x: to train a model further, give --base"):
        run_training(config, tmp_path / "run")


def test_the_commands_take_it_and_the_plan_shows_it(bases, trained, tmp_path, capsys):
    data = ["--data", str(bases / "train.jsonl"), "--anchor", str(bases / "anchor"), "--out", str(tmp_path / "out")]
    lora = ["baseline", "lora", *data, "size=2", "--init-from", str(trained / "lora"), "train.precision=fp32"]
    assert main([*lora, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["init_from"]["sha256"] == sha256_of(trained / "lora" / "model" / "model.safetensors")
    calm = ["compose", *data, "--aug", str(bases / "aug"), "--init-from", str(trained / "calm"), "every=1"]
    assert main([*calm, "--dry-run"]) == 2  # the preset has rotary bridges
    assert "init_from=" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
