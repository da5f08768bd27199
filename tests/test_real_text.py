"""The experiments on real text: which stages they have, what each reads, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.config import list_presets, load_config
from calmctl.errors import UserError
from calmctl.experiments.code import ReproduceCodeConfig, code_experiment
from calmctl.experiments.ntl import ReproduceNTLConfig, ntl_experiment
from calmctl.experiments.real_text import UNTRAINED
from calmctl.experiments.reproduction import experiment_stages
from calmctl.experiments.stage import Stage

COMPARISONS = ReproduceNTLConfig.COMPARISONS


def ntl(benchmarks: Path, *overrides: str) -> ReproduceNTLConfig:
    return load_config(ReproduceNTLConfig, "reproduce/ntl/smoke", [f"benchmarks={benchmarks}", *overrides])


def code(benchmarks: Path, *overrides: str) -> ReproduceCodeConfig:
    return load_config(ReproduceCodeConfig, "reproduce/code/smoke", [f"benchmarks={benchmarks}", *overrides])


def stages(config: ReproduceNTLConfig, out: Path) -> dict[str, Stage]:
    return {stage.name: stage for stage in experiment_stages(ntl_experiment(config, out), out)}


def test_everything_is_trained_on_its_own_file_and_scored(benchmarks: Path, tmp_path: Path) -> None:
    every = f"compare=[{','.join(COMPARISONS)}]"
    found = stages(ntl(benchmarks, every, "num_bridge_seeds=2", "seed=3"), tmp_path)
    data = tmp_path / "data"
    read = {"anchor": "anchor_train", "aug": "aug_train", "aug_vanilla": "anchor_train", "m_B_finetuned": "aug_train"}
    for name in ("calm", *COMPARISONS):
        if name not in ("m_B_finetuned", *UNTRAINED):
            read |= {name: "dc_train", f"{name}_seed4": "dc_train"}
    trained = {name: stage for name, stage in found.items() if name != "data" and not name.startswith("eval/")}
    assert {name: stage.settings["dataset"] for name, stage in trained.items()} == {
        name: str(data / f"{file}.parquet") for name, file in read.items()
    }
    validation = {name: Path(stage.settings["validation"]).name for name, stage in trained.items()}
    assert validation == {name: f"{file.replace('train', 'validation')}.parquet" for name, file in read.items()}
    scored = {name.removeprefix("eval/flores/") for name in found if name.startswith("eval/flores/")}
    untrained = {"m_A_examples_5", "m_B_examples_5", "handover_of_m_A_examples_5", "mixture"}
    assert scored == (trained.keys() - {"aug_vanilla"}) | untrained
    assert {name: found[name].settings["seed"] for name in ("anchor", "calm", "calm_seed4", "lora_seed4")} == {
        "anchor": 3, "calm": 3, "calm_seed4": 4, "lora_seed4": 4,
    }  # fmt: skip
    assert all(found[f"eval/flores/{name}"].needs == ("data", name) for name in scored - untrained)


def test_models_are_asked_otherwise_without_training(benchmarks: Path, tmp_path: Path) -> None:
    some = ["num_examples=2", "num_bridge_seeds=3", "tasks=[flores,mgsm]", f"mgsm.dataset={benchmarks}"]
    found = stages(ntl(benchmarks, f"compare=[{','.join(UNTRAINED)}]", *some), tmp_path)
    untrained = ("m_A_examples_2", "m_B_examples_2", "handover_of_m_A_examples_2")
    evaluations = {name: found[f"eval/flores/{name}"] for name in ("aug", "anchor", *untrained)}
    shots = {name: stage.settings["options"].get("shots", 0) for name, stage in evaluations.items()}
    assert [*shots.values()] == [0, 0, 2, 2, 0]
    model = {name: Path(stage.settings["model"]).name for name, stage in evaluations.items()}
    assert [model[name] for name in untrained] == ["aug", "anchor", "anchor"]
    handover = evaluations["handover_of_m_A_examples_2"]
    assert handover.settings["handover"] == str(tmp_path / "eval/flores/m_A_examples_2")
    assert handover.needs == ("data", "anchor", "eval/flores/m_A_examples_2")
    mixed = found["eval/flores/mixture"]
    assert [Path(mixed.settings[name]).name for name in ("model", "mix")] == ["anchor", "aug"]
    assert mixed.needs == ("data", "anchor", "aug")
    few = stages(ntl(benchmarks, f"compare=[{','.join(UNTRAINED)}]", *some, "untrained_limit=3"), tmp_path)
    assert few["eval/flores/aug"].settings == found["eval/flores/aug"].settings
    for name in (*untrained, "mixture"):
        assert few[f"eval/flores/{name}_first_3"].settings["limit"] == 3
    answering = few["eval/flores/handover_of_m_A_examples_2_first_3"]
    assert answering.settings["handover"] == str(tmp_path / "eval/flores/m_A_examples_2_first_3")
    without = stages(ntl(benchmarks, "compare=[handover]", *some), tmp_path)
    assert without["eval/mgsm/handover"].settings["handover"] == str(tmp_path / "eval/mgsm/aug")
    assert "eval/flores/m_A_examples_2" not in without
    controls = ["compare=[random_aug,lora]", "num_bridge_seeds=3", "num_control_seeds=1"]
    seeds = [name for name in stages(ntl(benchmarks, *controls), tmp_path) if "_seed" in name and "eval" not in name]
    assert set(seeds) == {
        "calm_seed1", "calm_seed2", "lora_seed1", "lora_seed2"
    }  # fmt: skip
    tasks = "tasks=[humaneval,mbpp,text]"
    held_out = code(benchmarks, f"compare=[{','.join(UNTRAINED)}]", "allow_code_execution=true", tasks)
    asked = {stage.name for stage in experiment_stages(code_experiment(held_out, tmp_path), tmp_path)}
    handover = "handover_of_m_A_examples_5"
    assert {f"eval/humaneval/{handover}", f"eval/mbpp/{handover}", "eval/mbpp/m_A_examples_5"} <= asked
    assert not asked & {f"eval/text/{handover}", "eval/text/m_A_examples_5", "eval/humaneval/m_A_examples_5"}


def test_each_comparison_differs_from_calm_in_one_thing(benchmarks: Path, tmp_path: Path) -> None:
    found = stages(ntl(benchmarks, "compare=[random_aug,vanilla_aug,aug_as_encoder,lora]"), tmp_path)
    calm = found["calm"].settings
    changed = {
        name: {key for key, value in found[name].settings.items() if value != calm[key]}
        for name in ("random_aug", "vanilla_aug", "aug_as_encoder")
    }
    assert changed == {"random_aug": {"random_aug"}, "vanilla_aug": {"augs"}, "aug_as_encoder": {"aug_reads"}}
    assert found["vanilla_aug"].settings["augs"] == [str(tmp_path / "aug_vanilla")]
    lora = found["lora"].settings
    assert lora["match"] == str(tmp_path / "calm") and lora["train"] == calm["train"]


def test_deviations_say_what_is_not_alike_and_only_of_what_is_evaluated(benchmarks: Path) -> None:
    unequal = "other methods are not trained as CALM is"
    told = ntl_experiment(ntl(benchmarks), Path("out")).deviations
    assert not [text for text in told if unequal in text]
    assert "FLORES is asked with 0 worked examples instead of 5" in told
    told = ntl_experiment(ntl(benchmarks, "compose.train.steps=99", "compose.train.lr=0.5"), Path("out")).deviations
    assert f"{unequal}: steps=10 instead of 99, lr=0.01 instead of 0.5" in told
    told = ntl_experiment(ntl(benchmarks, "baseline.lr_scale={lora: 0.5, series: 2}"), Path("out")).deviations
    assert [text for text in told if "learning rate" in text] == [
        "LoRA is trained at 0.5 times the learning rate of its preset"
    ]
    later = ["flores.options.first_row=7", "flores_from_english.options.first_row=9", "flores_from_english.limit=0"]
    asked = ntl(benchmarks, "tasks=[flores,flores_from_english]", "flores.limit=5", *later)
    told = ntl_experiment(asked, Path("out")).deviations
    rows = "only the first 5 sentences of each language of FLORES devtest are scored, counted from row 7"
    assert rows in told and "flores_from_english: rows of FLORES devtest before row 9 are left out" in told
    told = ntl_experiment(
        ntl(benchmarks, "tasks=[flores_from_english]", "flores.options.shots=5"), Path("out")
    ).deviations
    assert "FLORES is asked with 0 worked examples instead of 5" in told
    without = ntl(benchmarks, "compose.train.steps=99", "compare=[random_aug]", "tasks=[gsm8k]", "gsm8k.limit=7")
    told = ntl_experiment(replace(without, gsm8k=replace(without.gsm8k, dataset="gsm8k")), Path("out")).deviations
    assert "only the first 7 problems of GSM8K are asked" in told
    assert not [text for text in told if unequal in text or "FLORES" in text]


def test_existing_models_are_used_as_they_are(benchmarks: Path, tmp_path: Path) -> None:
    some = ["~anchor.model", "~aug.model", "anchor.base=org/large", "anchor.train.steps=0", "aug.base=org/small"]
    found = stages(ntl(benchmarks, *some, "compare=[vanilla_aug]"), tmp_path)
    assert "anchor" not in found and found["aug"].settings["base"] == "org/small"
    assert found["calm"].settings["anchor"] == "org/large" == found["eval/flores/anchor"].settings["model"]
    assert found["eval/flores/anchor"].needs == ("data",)
    assert found["vanilla_aug"].settings["augs"] == ["org/small"]  # before its further training
    with pytest.raises(UserError, match="vanilla_aug=MODEL"):
        ntl(benchmarks, *some, "aug.train.steps=0", "compare=[vanilla_aug]")
    with pytest.raises(UserError, match="m_B_finetuned, which is trained as m_A is"):  # for no steps at all
        ntl(benchmarks, *some, "aug.train.steps=0", "compare=[m_B_finetuned]")


def test_what_cannot_be_asked_is_told_before_anything_is_trained(
    benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["reproduce", "ntl", "--preset", "smoke", "--out", str(out), "--data", str(benchmarks)]
    assert main([*command, "flores.options.languages=[zul_Latn]"]) == 2
    assert "zul_Latn" in capsys.readouterr().err and not (out / "data").exists()
    problems = tmp_path / "gsm8k"
    problems.mkdir()
    for split in ("train", "test"):
        row = {"question": f"One and one in {split}?", "answer": "#### 2"}
        (problems / f"{split}.jsonl").write_text(json.dumps(row))
    (problems / "test.jsonl").write_text(json.dumps({"question": "One and one?", "answer": "2"}))
    asked = ["tasks=[gsm8k]", f"gsm8k.dataset={problems}", "gsm8k.options.shots=0"]
    assert main([*command, *asked]) == 2
    assert "has no '#### <number>' at its end" in capsys.readouterr().err and not (out / "data").exists()


def test_windows_of_held_out_code_fit_into_the_rows_that_models_are_trained_on() -> None:
    """Code has about 2.5 bytes a token; beyond the longest row of its training a model knows no positions."""
    for preset in list_presets():
        if preset.group == "reproduce/code":
            config = load_config(ReproduceCodeConfig, preset.name, [])
            window = config.text.build_task().window
            for train in (config.anchor.train, config.aug.train, config.compose.train):
                assert not train.packing or 2 * window <= 2.5 * train.context, preset.name


def test_an_encoder_needs_prompts(benchmarks: Path) -> None:
    for build, settings in ((code, []), (ntl, ["data.composition_rows=text"])):
        with pytest.raises(UserError, match="aug_as_encoder, which reads prompts"):
            build(benchmarks, *settings, "compare=[aug_as_encoder]")


def test_languages_of_flores_are_those_that_m_a_learns(benchmarks: Path) -> None:
    config = ntl_experiment(ntl(benchmarks), Path("out")).config
    assert isinstance(config, ReproduceNTLConfig)
    assert config.flores.options["languages"] == ["lij_Latn", "fur_Latn"]
    assert config.flores.dataset == str(benchmarks / "flores200") and config.data.data_folder == str(benchmarks)


def test_flores_is_asked_in_both_directions_apart(benchmarks: Path, tmp_path: Path) -> None:
    found = stages(ntl(benchmarks, "tasks=[flores,flores_from_english]", "flores_from_english.limit=3"), tmp_path)
    into, out_of = (found[f"eval/{name}/calm"] for name in ("flores", "flores_from_english"))
    assert into.command[:2] == out_of.command[:2] == ("eval", "flores")
    assert into.settings["options"].get("direction", "xx-en") == "xx-en"
    assert out_of.settings["options"]["direction"] == "en-xx" and out_of.settings["limit"] == 3
    assert into.settings["options"]["languages"] == out_of.settings["options"]["languages"] == ["lij_Latn", "fur_Latn"]


def test_programs_are_run_only_where_it_is_allowed(benchmarks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--allow-code-execution.*tasks=\\[codexglue,text\\]"):
        code_experiment(code(benchmarks), tmp_path)
    found = code_experiment(code(benchmarks, "allow_code_execution=true"), tmp_path)
    assert found.config.evaluations()["humaneval"].options == {"allow_code_execution": True}
    without = code_experiment(code(benchmarks, "tasks=[codexglue,text]"), tmp_path)
    scored = {
        stage.name.split("/")[1] for stage in experiment_stages(without, tmp_path) if stage.name.startswith("eval")
    }
    assert scored == {"codexglue", "text"}
    with pytest.raises(UserError, match="--source"):
        code_experiment(replace(code(benchmarks), data=replace(code(benchmarks).data, sources=())), tmp_path)
