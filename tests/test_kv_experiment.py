"""The key-value experiment: its stages, controls and ablations, the tokenizers of its models, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from calmctl.cli.main import main
from calmctl.config import load_config, to_yaml
from calmctl.errors import UserError
from calmctl.experiments.kv import kv_experiment
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.kv_systems import base_configs, check_compositions
from calmctl.experiments.reproduction import experiment_stages, preflight, results
from calmctl.experiments.stage import Stage
from calmctl.reporting.systems_table import SYSTEMS
from calmctl.runs.run import config_sha256
from data_builders.kv.build import build
from tests.report_folder import read, write

OUT = Path("/reproduction")
presets = pytest.mark.parametrize("name", ["smoke", "tiny", "paper"])


@cache
def configured(name: str, *overrides: str) -> ReproduceKVConfig:
    return load_config(ReproduceKVConfig, f"reproduce/kv/{name}", [f"preset={name}", *overrides])


def ablated(name: str = "smoke", *overrides: str) -> ReproduceKVConfig:
    return configured(name, "ablate=true", *overrides)


def stages(config: ReproduceKVConfig, out: Path = OUT) -> dict[str, Stage]:
    return {stage.name: stage for stage in experiment_stages(kv_experiment(config, out), out)}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def difference(one: Stage, other: Stage) -> set[str]:
    before, after = flat(one.settings), flat(other.settings)
    return {key for key in before | after if before.get(key) != after.get(key)}


# Controls and ablations


@presets
def test_each_composition_differs_from_the_headline_in_one_setting(name: str) -> None:
    config = ablated(name)
    found, chosen = stages(config), config.ablations
    expected = {"random_aug": "augs", "dc_subs": "dataset", "dc_math": "dataset", "vanilla_aug": "augs"}
    expected |= {"aug_as_encoder": "aug_reads"} | {f"every_{every}": "every" for every in chosen.every}
    expected |= {f"heads_{heads}": "bridge.num_heads" for heads in chosen.heads}
    expected |= {f"share_{share:g}": "dataset" for share in chosen.shares}
    for variant, setting in expected.items():
        assert difference(found[variant], found["calm"]) == {setting}, variant
    assert difference(found["vanilla"], found["aug"]) == {"dataset"}
    assert difference(found["aug_random"], found["aug"]) == {"train.steps"}
    for share in chosen.shares:
        data = found[f"data_share_{share:g}"]
        assert difference(data, found["data"]) == {"held_in_fraction"} and data.settings["held_in_fraction"] == share
        scored = found[f"eval/kv/share_{share:g}"]
        assert difference(scored, found["eval/kv/calm"]) == {"dataset", "model"}
        assert scored.settings["dataset"] == str(data.folder) and scored.needs == ("data", f"share_{share:g}")
        assert data.name in found[f"share_{share:g}"].needs
    composed = {stage.name for stage in found.values() if stage.command[0] == "compose"}
    assert composed == expected.keys() | {"calm"}


@presets
def test_other_methods_get_data_steps_batches_and_parameters_of_the_headline(name: str) -> None:
    config = ablated(name)
    found, calm = stages(config), stages(config)["calm"]
    for method in config.ablations.methods:
        trained = found[method]
        assert trained.command[:2] == ("baseline", method) and trained.settings["match"] == str(calm.folder)
        for setting in ("dataset", "anchor", "train", "seed"):
            assert trained.settings[setting] == calm.settings[setting], setting
    assert difference(found["further"], found["full"]) == {"dataset"}
    assert found["further"].settings["dataset"].endswith("data/aug_train.parquet")


@presets
def test_systems_are_named_as_the_table_of_systems_has_them_and_have_folders_of_their_own(name: str) -> None:
    experiment = kv_experiment(ablated(name, "num_bridge_seeds=2", "num_control_seeds=1"), OUT)
    systems = experiment.systems(experiment.config, OUT, experiment.files, "").all()
    keys = [system.key for system in systems]
    assert len({*keys}) == len(keys) and {key for key in keys if "_0" not in key and key[-1:].isalpha()} <= {*SYSTEMS}
    folders = {stage.folder: stage.name for system in systems for model in system.models for stage in model.stages}
    assert len({*folders.values()}) == len(folders) and OUT not in folders and OUT / "data" not in folders
    seeds = {system.key: len(system.models) for system in systems}
    assert seeds["calm"] == seeds["lora"] == 2 and seeds["m_A"] == seeds["random_aug"] == seeds["share_0.5"] == 1
    varied = {system.key: (system.label, system.value) for system in systems if system.value is not None}
    assert varied["share_0.5"] == ("50% of the keys", 0.5)
    assert varied["every_3" if name == "tiny" else "every_2"][0] == f"every {3 if name == 'tiny' else 2} layers"


def test_values_of_the_headline_are_not_trained_again() -> None:
    found = stages(ablated("smoke", "ablations.heads=[1,2]", "ablations.every=[1,2]", "ablations.shares=[0.2,0.5]"))
    assert {"heads_1", "every_2", "share_0.5"} <= found.keys()
    assert not {"heads_2", "every_1", "share_0.2"} & found.keys()
    unsaid = stages(ablated("smoke", "compose.bridge.num_heads=null", "ablations.heads=[1,2]"))  # m_B has 2
    assert "heads_1" in unsaid and "heads_2" not in unsaid
    explicit = stages(ablated("smoke", "compose.connections=[[1,1]]", "ablations.every=[1,2]"))
    assert {"every_1", "every_2"} <= explicit.keys()


def test_controls_may_be_trained_for_fewer_steps_and_left_out() -> None:
    found = stages(configured("smoke", "control_steps=3"))
    steps = {name: found[name].settings["train"]["steps"] for name in ("calm", "random_aug", "dc_subs", "dc_math")}
    assert steps == {"calm": 20, "random_aug": 3, "dc_subs": 3, "dc_math": 3}
    assert stages(configured("smoke", "compare=[]")).keys() == {
        "data", "aug", "anchor", "calm", "eval/kv/aug", "eval/kv/anchor", "eval/kv/calm",
    }  # fmt: skip


def test_bridges_too_large_to_match_are_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="ablations.methods=lora: .* more than the whole anchor has"):
        check_compositions(ablated("smoke", "anchor.model.intermediate_size=8", "aug.model.hidden_size=2048"))


def test_the_plan_lists_the_stages(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["reproduce", "kv", "--preset", "smoke", "--out", str(tmp_path / "out"), "--dry-run", "--json"]
    planned = []
    for more in ([], ["--ablations"]):
        assert main([*command, *more]) == 0
        planned.append([stage["stage"] for stage in json.loads(capsys.readouterr().out)["stages"]])
    without, names = planned
    assert [name for name in names if name in without] == without and names[-1].startswith("eval/")
    assert {"lora", "vanilla", "data_share_0.5", "eval/kv/further"} <= {*names} - {*without}
    assert not (tmp_path / "out").exists()


# What is done


def write_done(config: ReproduceKVConfig, out: Path) -> None:
    """Write what is there when all stages are done, and how the experiment is kept where it was run to its end."""
    for number, stage in enumerate(stages(config, out).values()):
        facts = {"kind": stage.command[0], "status": "complete", "config_sha256": config_sha256(stage.config)}
        write(stage.folder / "run.json", facts)
        metrics = {"kv_subs": number, "num_math": 2.0, "kv_math": 3.0, "kv_math_direct": 4.0}
        write(stage.result, {"task": "kv", "metrics": metrics, "breakdown": {}})
    experiment = kv_experiment(config, out)
    found = results(experiment, out, {"total": 1.0})
    write(out / "results.json", found)
    for file, export in experiment.exports.items():
        write(out / file, export(found, out))
    write(out / "run.json", {"kind": "reproduce", "status": "complete", "config_sha256": config_sha256(config)})
    (out / "config.yaml").write_text(to_yaml(config))


def is_done(config: ReproduceKVConfig, out: Path) -> bool:
    return preflight(kv_experiment(config, out), out, None)


def test_what_is_done_is_not_done_again_and_more_or_less_can_be_asked_for(tmp_path: Path) -> None:
    write_done(ablated(), tmp_path)
    assert is_done(ablated(), tmp_path)
    found = read(tmp_path / "results.json")
    assert {"m_A", "calm", "random_aug", "vanilla_aug", "heads_1", "share_0.5", "lora", "further"} <= {
        system["key"] for system in found["systems"]
    }
    assert read(tmp_path / "table5.json")["calm_values"] == {"share": 0.2, "heads": 2, "connections": 1}
    # Tables of other comparisons have to be written, even if every stage is done; nothing of it is refused.
    assert is_done(configured("smoke"), tmp_path), "a run that has ablations keeps them without --ablations"
    for other in (ablated("smoke", "ablations.methods=[lora]"), configured("smoke", "compare=[]")):
        assert not is_done(other, tmp_path)
    with pytest.raises(UserError, match=r"another configuration \(compose.train.steps: 20 -> 30\)"):
        is_done(ablated("smoke", "compose.train.steps=30"), tmp_path)
    for file in ("results.json", "table1.json", "table5.json", "eval/kv/calm/metrics.json", "data/manifest.json"):
        (tmp_path / file).rename(tmp_path / "kept")
        if file != "results.json":  # without which it would be a folder of the version before
            assert not is_done(ablated(), tmp_path), file
        (tmp_path / "kept").rename(tmp_path / file)


# Tokenizers of their own


def tokenizers(found: Mapping[str, Stage]) -> dict[str, str]:
    return {
        name: Path(stage.settings["tokenizer"]).name for name, stage in found.items() if stage.command[0] == "train"
    }


def test_models_are_trained_with_tokenizers_of_their_own() -> None:
    found = stages(configured("two-tokenizers"))
    own = dict.fromkeys(("aug", "aug_random"), "tokenizer_aug")
    assert tokenizers(found) == {"anchor": "tokenizer", "aug_one_tokenizer": "tokenizer"} | own
    assert difference(found["aug_one_tokenizer"], found["aug"]) == {"tokenizer"}
    assert difference(found["one_tokenizer"], found["calm"]) == {"augs"}


def test_several_augs_are_composed_at_once() -> None:
    found = stages(configured("two-augs", "compare=[random_aug]"))
    assert tokenizers(found) == {
        "anchor": "tokenizer",
        **{"aug": "tokenizer_aug", "aug2": "tokenizer_aug2"},
        **{"aug_random": "tokenizer_aug", "aug_random2": "tokenizer_aug2"},
    }
    assert found["calm"].settings["augs"] == [f"{OUT}/aug", f"{OUT}/aug2"]
    assert found["random_aug"].settings["augs"] == [f"{OUT}/aug_random", f"{OUT}/aug_random2"]
    assert found["aug2"].settings["dataset"] == f"{OUT}/data/aug2_train.parquet"
    assert found["calm"].needs == ("data", "anchor", "aug", "aug2") and "eval/kv/aug2" in found


def test_a_plan_has_the_sizes_of_the_models_to_come(tmp_path: Path) -> None:
    config = configured("two-augs", "data.num_keys=200", "data.num_values=20")
    small = dict.fromkeys(("num_anchor_rows", "num_aug_rows", "num_composition_rows"), 10)
    build(replace(config.data, num_test_rows=1, **small), tmp_path)
    anchor, augs = base_configs(config)
    folders = ("tokenizer", "tokenizer_aug", "tokenizer_aug2")
    sizes = [len(AutoTokenizer.from_pretrained(tmp_path / name)) for name in folders]
    assert [model.vocab_size for model in (anchor, *augs)] == sizes
    token_ids = kv_experiment(config, tmp_path).token_ids
    assert token_ids and [token_ids(str(tmp_path / name)) for name in folders] == sizes
