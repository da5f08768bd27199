"""What holds for every experiment: names of systems, presets, what is refused, plans."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calmctl.baselines.options import METHODS
from calmctl.cli.main import main
from calmctl.config import list_presets, load_config
from calmctl.experiments.adapter_config import ReproduceAdaptersConfig
from calmctl.experiments.code import ReproduceCodeConfig
from calmctl.experiments.config import ExperimentConfig
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.kv_systems import COMPOSITIONS
from calmctl.experiments.ntl import ReproduceNTLConfig
from calmctl.reporting.layouts import LAYOUTS
from calmctl.reporting.measures import HEADLINE_MODELS
from calmctl.reporting.systems_table import GROUPS, SYSTEMS, system_row
from calmctl.training.settings import TrainSettings

SCHEMAS: dict[str, type[ExperimentConfig]] = {
    "kv": ReproduceKVConfig, "ntl": ReproduceNTLConfig, "code": ReproduceCodeConfig,
    "adapters": ReproduceAdaptersConfig,
}  # fmt: skip


@pytest.mark.parametrize("experiment", SCHEMAS)
def test_what_can_be_compared_has_a_row_in_the_table_of_systems(experiment: str) -> None:
    """What is added in one place is shown everywhere, by its own name, in a group and a colour."""
    for key in ("m_A", "m_B", "calm", *SCHEMAS[experiment].COMPARISONS, *METHODS, *HEADLINE_MODELS, *COMPOSITIONS):
        assert system_row(key) is SYSTEMS[key] and SYSTEMS[key].label and SYSTEMS[key].group in GROUPS, key
    for key in ("every_2", "heads_16", "share_0.05", "lora_rank_8", "p_tuning_tokens_20"):
        assert system_row(key).label.count("{}") == 1
    with pytest.raises(KeyError):
        system_row("luck")


def as_batches(train: TrainSettings) -> TrainSettings:
    """Return settings without those of the optimizer: what is trained on, how often, and what is kept."""
    plain = TrainSettings()
    names = ("optimizer", "lr", "weight_decay", "schedule", "hold_share", "final_lr_share", "keep_states")
    return replace(train, **{name: getattr(plain, name) for name in names})


@pytest.mark.parametrize("experiment", SCHEMAS)
def test_every_preset_trains_other_methods_as_it_trains_calm(experiment: str) -> None:
    names = [preset.name for preset in list_presets() if preset.group == f"reproduce/{experiment}"]
    assert len(names) > 1
    for name in names:
        config = load_config(SCHEMAS[experiment], name, [])
        assert as_batches(config.baseline.train) == as_batches(config.compose.train), name
        # Bridges that read standardised streams are trained by Muon, adapters by AdamW.
        if not config.compose.bridge.standardize:
            assert config.baseline.train == config.compose.train, name
        assert config.baseline.attention == config.compose.attention, name


@pytest.mark.parametrize("experiment", SCHEMAS)
def test_the_report_shows_samples_of_every_task_that_models_write_answers_to(experiment: str) -> None:
    for preset in (each for each in list_presets() if each.group == f"reproduce/{experiment}"):
        found = load_config(SCHEMAS[experiment], preset.name).evaluations()
        tasks = {name: evaluation.build_task() for name, evaluation in found.items()}
        written = {name for name, task in tasks.items() if task.name != "text" and not task.measures_choices}
        assert written and written == LAYOUTS[experiment].samples.keys(), preset.name


@pytest.mark.parametrize("experiment, overrides, message", [
    ("ntl", ["compare=[luck]"], "compare: 'luck' is not one of random_aug"),
    ("ntl", ["compare=[lora,lora]"], "names lora twice"),
    ("ntl", ["tasks=[humaneval]"], "tasks: 'humaneval' is not one of flores"),
    ("ntl", ["flores_from_english.options.direction=xx-en"],
     "flores_from_english.options.direction=xx-en: it is en-xx"),
    ("ntl", ["tasks=[flores_unseen]"], "flores_unseen.options.languages: name languages that nothing is trained on"),
    ("ntl", ["tasks=[flores_unseen]", "flores_unseen.options.languages=[zul_Latn,fur_Latn]"],
     "flores_unseen.options.languages: models are trained on fur_Latn"),
    ("ntl", ["gsm8k.task=mgsm"], "gsm8k.task=mgsm: it cannot be another task than its name says"),
    ("ntl", ["compose.augs=[x]"], "compose.augs=('x',): the experiment decides that"),
    ("ntl", ["aug.seed=5"], "set seed=..."),
    ("ntl", ["num_bridge_seeds=0"], "num_bridge_seeds=0 must be at least 1"),
    ("ntl", ["benchmarks=''"], "--data FOLDER"),
    ("ntl", ["compose.train.packing=true"], "only text is packed, and data.composition_rows=pairs"),
    ("ntl", ["compose.train.epochs=2"], "compose.train.epochs: experiments are planned in steps; set"),
    ("kv", ["baseline.train.epochs=0.5"], "baseline.train.epochs: experiments are planned in steps"),
    ("ntl", ["tasks=[mgsm]"], "no data of the task 'mgsm'"),
    ("kv", ["ablations.shares=[0]"], "ablations: shares=[0.0]: 0 must lie between 0 and 1"),
    ("kv", ["ablations.shares=[5]"], "5 must lie between 0 and 1"),
    ("kv", ["ablations.shares=[0.01]"], "ablations.shares=0.01: held_in_fraction"),
    ("kv", ["ablations.methods=[lora,lara]"], "ablations: methods: 'lara' is not one of lora, prefix"),
    ("kv", ["ablations.every=[3]"], "ablations.every=3: m_A has 2 layers only"),
    ("kv", ["ablations.every=[0]"], "0 must be at least 1"),
    ("kv", ["ablations.heads=[1,1]"], "heads=[1, 1] names 1 twice"),
    ("kv", ["ablations.heads=[5]"], "ablations.heads=5: bridge.num_heads=5 does not divide"),
    ("kv", ["ablations.head=[1]"], "ablations.head"),
    ("kv", ["baseline.size=4"], "baseline.size=4: the experiment decides that"),
    ("kv", ["eval.dataset=x"], "eval.dataset=x: the experiment decides that"),
    ("kv", ["baseline.where=both"], "ablations.methods=prefix: where=both: Prefix tuning cannot go there"),
    ("kv", ["compare=[vanilla]"], "'vanilla' is not one of random_aug, dc_subs, dc_math, one_tokenizer"),
    ("kv", ["compare=[dc_subs,dc_subs]"], "names dc_subs twice"),
    ("kv", ["compare=[one_tokenizer]"],
     "compare names one_tokenizer, and the models have one tokenizer; set data.anchor_cut"),
    ("kv", ["controls=false"], "controls"),
])  # fmt: skip
def test_bad_settings_are_one_line_before_anything_runs(
    benchmarks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    experiment: str,
    overrides: list[str],
    message: str,
) -> None:
    given = ["--ablations"] if experiment == "kv" else ["--data", str(benchmarks)]
    out = tmp_path / "out"
    assert main(["reproduce", experiment, "--preset", "smoke", "--out", str(out), *given, *overrides]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()


def test_the_plan_of_several_seeds_names_their_folders(
    benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "ntl", "--preset", "smoke", "--data", str(benchmarks), "--out", str(tmp_path / "out")]
    assert main([*command, "--seeds", "2", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    folders = {stage["command"].rpartition("--out ")[2] for stage in plan["stages"] if stage["stage"] == "calm"}
    assert folders == {str(tmp_path / "out" / seed / "calm") for seed in ("seed0", "seed1")}
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")  # that of a run with one seed
    assert main([*command, "--seeds", "2", "--dry-run"]) == 2
    assert "holds a single run; choose another --out" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_is_told_before_anything_is_made(
    benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, missing = tmp_path / "out", tmp_path / "no-such-model"
    command = ["reproduce", "ntl", "--preset", "smoke", "--out", str(out), "--data", str(benchmarks)]
    assert main([*command, "~aug.model", f"aug.base={missing}"]) == 2
    assert str(missing) in capsys.readouterr().err and not (out / "data").exists()
