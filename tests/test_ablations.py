"""Ablations: every variant differs from the headline in one thing, is made once, and stands in table and report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from matplotlib import image

from calmctl.cli.main import main
from calmctl.cli.reproduce import _print_results
from calmctl.config import load_config
from calmctl.errors import UserError
from calmctl.experiments.kv import kv_stages
from calmctl.experiments.kv_ablations import ablate_kv
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.kv_variants import Variant, check_ablations, kv_variants
from calmctl.experiments.stages import Stage
from calmctl.reporting import kv_report
from calmctl.reporting.document.tables import to_markdown
from calmctl.reporting.kv_ablations import load_kv_ablations, table5
from calmctl.reporting.kv_report import measured_tables, write_kv_report
from calmctl.reporting.plots import groups as plots
from calmctl.reporting.plots import scaling as kv_ablation_plots
from calmctl.reporting.plots.scaling import ablations_plot, scaling_plot
from calmctl.reporting.plots.style import to_png
from calmctl.reporting.seeds import aggregate_seeds, write_seed_summary
from calmctl.runs.run import Run, config_sha256
from data_builders.kv.build import build
from tests.kv_folder import SYNTHETIC, accuracies, write, write_folder
from tests.kv_settings import SMALL

PLAUSIBLE = {"vanilla_aug": 0.4, "aug_as_encoder": 88.1, "every_2": 78.1, "heads_1": 87.9, "share_0.5": 95.9}


@cache
def preset(*overrides: str, name: str = "smoke") -> ReproduceKVConfig:
    return load_config(ReproduceKVConfig, f"reproduce/kv/{name}", [f"preset={name}", *overrides])


def variants(config: ReproduceKVConfig) -> dict[str, Variant]:
    return {variant.name: variant for variant in kv_variants(config, Path("/reproduction"))}


def stage_of(stages: tuple[Stage, ...] | list[Stage], *command: str) -> Stage:
    return next(stage for stage in stages if stage.command[: len(command)] == command)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def difference(one: Stage, other: Stage) -> set[str]:
    before, after = flat(one.settings), flat(other.settings)
    return {key for key in before | after if before.get(key) != after.get(key)}


# What is varied


@pytest.mark.parametrize("name", ["smoke", "tiny", "paper"])
def test_each_composition_differs_from_the_headline_in_one_setting(name):
    config = preset(name=name)
    stages = {stage.name: stage for stage in kv_stages(config, Path("/reproduction"))}
    found = variants(config)
    expected = {"vanilla_aug": "augs", "aug_as_encoder": "aug_reads"}
    expected |= {f"every_{every}": "every" for every in config.ablations.every}
    expected |= {f"heads_{heads}": "bridge.num_heads" for heads in config.ablations.heads}
    expected |= {f"share_{share:g}": "dataset" for share in config.ablations.shares}
    for variant, setting in expected.items():
        assert difference(stage_of(found[variant].stages, "compose"), stages["calm"]) == {setting}, variant
    assert difference(stage_of(found["vanilla_aug"].stages, "train", "aug"), stages["aug"]) == {"dataset"}
    for share in config.ablations.shares:
        data = stage_of(found[f"share_{share:g}"].stages, "data", "kv")
        assert difference(data, stages["data"]) == {"held_in_fraction"} and data.settings["held_in_fraction"] == share
        assert difference(stage_of(found[f"share_{share:g}"].stages, "eval"), stages["eval/calm"]) == {
            "dataset",
            "model",
        }
    assert found.keys() == expected.keys() | set(config.ablations.methods) | {"further"}


@pytest.mark.parametrize("name", ["smoke", "tiny", "paper"])
def test_other_methods_get_data_steps_batches_and_parameters_of_the_headline(name):
    config = preset(name=name)
    calm = stage_of(kv_stages(config, Path("/reproduction")), "compose")
    found = variants(config)
    for method in config.ablations.methods:
        trained = stage_of(found[method].stages, "baseline", method)
        assert trained.settings["dataset"] == calm.settings["dataset"]
        assert trained.settings["anchor"] == calm.settings["anchor"]
        assert trained.settings["train"] == calm.settings["train"]
        assert trained.settings["match"] == str(calm.folder)
    further = stage_of(found["further"].stages, "baseline", "full")
    assert difference(further, stage_of(found["full"].stages, "baseline")) == {"dataset"}
    assert further.settings["dataset"].endswith("data/aug_train.parquet")


def test_names_of_stages_and_folders_are_all_different_and_none_is_the_reproductions():
    config = preset(name="tiny")
    folders = [stage.folder for variant in variants(config).values() for stage in variant.stages]
    folders += [stage.folder for stage in kv_stages(config, Path("/reproduction"))]
    assert len(set(folders)) == len(folders)


def test_values_of_the_headline_are_not_trained_again():
    config = preset("ablations.heads=[1,2]", "ablations.every=[1,2]", "ablations.shares=[0.2,0.5]")
    assert {"heads_1", "every_2", "share_0.5"} <= variants(config).keys()
    assert not {"heads_2", "every_1", "share_0.2"} & variants(config).keys()
    unsaid = preset("compose.bridge.num_heads=null", "ablations.heads=[1,2]")  # the anchor's number: 2
    assert "heads_2" not in variants(unsaid)
    explicit = preset("compose.connections=[[1,1]]", "ablations.every=[1,2]")
    assert {"every_1", "every_2"} <= variants(explicit).keys()


def test_keys_and_values_are_the_same_for_every_share(tmp_path):
    tables = []
    for share in (0.3, 0.6):
        build(replace(SMALL, held_in_fraction=share), tmp_path / str(share))
        tables.append(pq.read_table(tmp_path / str(share) / "keys.parquet"))
    one, other = tables
    assert one.select(["key", "value"]).equals(other.select(["key", "value"]))
    held_in = [sum(table["held_in"].to_pylist()) for table in tables]
    assert held_in == [round(share * SMALL.num_keys) for share in (0.3, 0.6)]
    words = [(tmp_path / str(share) / "tokenizer" / "tokenizer.json").read_bytes() for share in (0.3, 0.6)]
    assert words[0] == words[1]


# What bad settings get


@pytest.mark.parametrize("override, message", [
    ("ablations.shares=[0]", "ablations: shares=[0.0]: 0 must lie between 0 and 1"),
    ("ablations.shares=[5]", "5 must lie between 0 and 1"),
    ("ablations.shares=[0.01]", "ablations.shares=0.01: held_in_fraction"),
    ("ablations.methods=[lora,lara]", "ablations: methods: 'lara' is not one of lora, prefix"),
    ("ablations.every=[3]", "ablations.every=3: m_A has 2 layers only"),
    ("ablations.every=[0]", "0 must be at least 1"),
    ("ablations.heads=[1,1]", "heads=[1, 1] names 1 twice"),
    ("ablations.heads=[5]", "ablations.heads=5: bridge.num_heads=5 does not divide"),
    ("ablations.head=[1]", "ablations.head"),
    ("baseline.size=4", "baseline.size=4: the experiment decides that"),
    ("baseline.where=both", "ablations.methods=prefix: where='both': prefix tuning acts on attention only"),
])  # fmt: skip
def test_bad_settings_are_one_line_before_anything_runs(tmp_path, capsys, override, message):
    out = tmp_path / "out"
    assert main(["reproduce", "kv", "--preset", "smoke", "--ablations", "--out", str(out), override]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0]
    assert not out.exists()


def test_bridges_too_large_to_match_are_refused_before_anything_runs():
    with pytest.raises(UserError, match="ablations.methods=lora: .* more than the whole anchor has"):
        check_ablations(preset("anchor.model.intermediate_size=8", "aug.model.hidden_size=2048"))


def test_the_plan_lists_the_stages(capsys, tmp_path):
    command = ["reproduce", "kv", "--preset", "smoke", "--out", str(tmp_path / "out"), "--dry-run", "--json"]
    assert main(command) == 0
    without = json.loads(capsys.readouterr().out)["stages"]
    assert main([*command, "--ablations"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert stages[: len(without)] == without
    names = [stage["stage"] for stage in stages[len(without) :]]
    assert names[-1].startswith("eval/") and {"lora", "vanilla", "data_share_0.5", "eval/further"} <= set(names)
    assert not (tmp_path / "out").exists()


# What is written


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Leave the plots out that tests/test_reporting.py is about; lay ours out undrawn: drawing takes time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("table1_plot", "controls_plot", "operands_plot", "strata_plot"):
            patch.setattr(plots, name, lambda results: b"not drawn")
        patch.setattr(kv_report, "training_plot", lambda trainings, title: b"not drawn")
        patch.setattr(kv_ablation_plots, "to_png", lambda figure: b"not drawn")
        yield


def write_done(config: ReproduceKVConfig, out: Path, change: float = 0.0) -> None:
    """Write what is there when ablations are interrupted after the last of their stages."""
    with suppress(KeyboardInterrupt), Run.start(out / "ablations", kind="reproduce", config=config, seed=config.seed):
        raise KeyboardInterrupt
    for number, variant in enumerate(kv_variants(config, out)):
        for stage in variant.stages:
            facts = {"kind": stage.command[0], "status": "complete", "seconds": 80.0, "trainable_parameters": 123_457}
            facts["config_sha256"] = config_sha256(stage.config)
            if stage.command[0] in ("compose", "baseline", "train"):
                facts["cost"] = {
                    "trainable_parameters": 123_457, "flops_per_token": 3e6, "seconds_per_step": 0.1,
                    "tokens_per_second": 900.0 + number, "model_bytes": 2**20,
                }  # fmt: skip
            if stage.command[0] == "baseline":
                facts |= {"method": stage.command[1], "matched_parameters": 123_456, "difference_percent": 0.001}
            write(stage.folder / "run.json", facts)
            value = PLAUSIBLE.get(variant.name, 0.11 * (number + 1)) + change
            metrics = accuracies((96.0 + change, 94.0, value, 3.0))
            write(stage.result, {"metrics": metrics} if stage.command[0] == "eval" else {})


@pytest.fixture
def done(tmp_path, undrawn) -> Path:
    """A reproduction whose trainings and evaluations, those of the ablations too, are all done."""
    folder = write_folder(tmp_path / "kv")
    write_done(preset(), folder)
    return folder


@pytest.fixture(scope="module")
def ablated(tmp_path_factory, undrawn) -> Path:
    """Such a reproduction with table and report."""
    folder = write_folder(tmp_path_factory.mktemp("ablated") / "kv")
    write_done(preset(), folder)
    ablate_kv(preset(), folder)
    return folder


def read_table5(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "ablations" / "table5.json").read_text())


def test_table5_holds_what_the_evaluations_and_runs_say(ablated):
    table, made = read_table5(ablated), variants(preset())
    assert list(table["rows"]) == [*SYNTHETIC, *made]
    for key, row in table["rows"].items():
        assert row["metrics"] == json.loads((ablated / row["evaluation"] / "metrics.json").read_text())["metrics"], key
        facts = json.loads((ablated / row["run"] / "run.json").read_text())
        assert row["trainable_parameters"] == facts["trainable_parameters"]
        if key in made:
            assert row["cost"].items() >= facts["cost"].items()
    lora = table["rows"]["lora"]
    assert (lora["matched_parameters"], lora["difference_percent"], lora["cost"]["method"]) == (123_456, 0.001, "lora")
    assert table["calm_values"] == {"share": 0.2, "heads": 2, "connections": 1}
    assert table["rows"]["share_0.5"]["value"] == 0.5
    assert json.loads((ablated / "ablations" / "run.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_more_can_be_asked_for(done):
    ablate_kv(preset("ablations.methods=[lora]"), done)
    before = (done / "ablations" / "table5.json").read_bytes()
    ablate_kv(preset("ablations.methods=[lora]"), done)
    assert (done / "ablations" / "table5.json").read_bytes() == before
    ablate_kv(preset(), done)
    assert {"lora", "series"} <= read_table5(done)["rows"].keys()
    ablate_kv(preset("ablations.methods=[lora]"), done)
    assert "series" not in (done / "report.md").read_text()
    # Nothing was started: every stage has a log from its start on.
    assert not (done / "ablations" / "logs").exists()
    with pytest.raises(UserError, match=r"another configuration \(compose.train.steps: 20 -> 30\)"):
        ablate_kv(preset("compose.train.steps=30"), done)


@pytest.mark.slow
def test_a_score_that_changed_reaches_the_table(done):
    ablate_kv(preset(), done)
    write(done / "eval" / "calm" / "metrics.json", {"metrics": accuracies((1.0, 2.0, 3.0, 4.0))})
    ablate_kv(preset(), done)
    assert read_table5(done)["rows"]["calm"]["metrics"]["kv_math"] == 3.0


def test_the_report_has_every_figure_group_and_cost(ablated):
    text, html = (ablated / "report.md").read_text(), (ablated / "report.html").read_text()
    rows = read_table5(ablated)["rows"]
    for row in rows.values():
        line = next(line for line in text.splitlines() if line.startswith(f"| [{row['label']}]({row['run']})"))
        for value in row["metrics"].values():
            assert f"[{value:.1f}]({row['evaluation']})" in line
    for heading in ("Other methods", "What m_A is", "Share of keys in D_C (CALM: 20%)", "Attention heads (CALM: 2)"):
        assert f"| **{heading}** |" in text and f'<th class="heading" colspan="7">{heading}</th>' in html
    assert "| [LoRA](ablations/lora) | 123,457 | ±0.0% |" in text
    cost = text.split("**Cost of training**")[1]
    names = ["LoRA", "prefix tuning", "m_A as an encoder", "vanilla m_A", "vanilla m_A itself", "1 head"]
    assert all(f"| {name} | " in cost for name in names)
    for picture in ("ablations", "scaling"):
        assert f"(plots/{picture}.png)" in text and (ablated / "plots" / f"{picture}.png").exists()


def test_plots_are_drawn(ablated, monkeypatch):
    monkeypatch.setattr(kv_ablation_plots, "to_png", to_png)
    for draw in (ablations_plot, scaling_plot):
        pixels = image.imread(BytesIO(draw(load_kv_ablations(ablated))))[..., :3]
        assert pixels.shape[1] > 900 and 0.005 < (pixels.min(-1) < 0.9).mean() < 0.6 and pixels.std() > 0.05


def test_damaged_and_partial_tables(done):
    ablate_kv(preset(), done)
    path, table = done / "ablations" / "table5.json", read_table5(done)
    write(path, table | {"rows": {"calm": table["rows"]["calm"]}})
    write_kv_report(done)
    del table["rows"]["calm"]["label"]
    write(path, table)
    with pytest.raises(UserError, match=r"table5\.json: damaged \(KeyError: 'label'\)"):
        write_kv_report(done)


def test_seeds_have_means_of_table5(tmp_path, done):
    other = write_folder(tmp_path / "other", seed=8, change=1.0)
    write_done(preset("seed=8"), other, change=2.0)
    ablate_kv(preset(), done)
    ablate_kv(preset("seed=8", "ablations.methods=[lora]"), other)
    summary = aggregate_seeds([done, other])
    markdown, machine = write_seed_summary(summary, tmp_path / "out")
    share = json.loads(machine.read_text())["ablations"]["share_0.5"]["kv_math"]
    assert share["values"] == [95.9, 97.9] and share["mean"] == pytest.approx(96.9)
    text = markdown.read_text()
    assert "| 50% of the keys | 123,457 | ±0.0% | 97.0 ± 1.4 | 94.0 ± 0.0 | 96.9 ± 1.4 | 3.0 ± 0.0 |" in text
    assert "(1 of 2 seeds)" in text and "over 2 seeds" in text
    reversed_order = to_markdown(table5(load_kv_ablations(other), load_kv_ablations(done)))
    assert "| parallel adapters |" in reversed_order  # only the second of them has it


def test_json_holds_both_tables(ablated, capsys):
    _print_results(ablated, [ablated], json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["calm"]["kv_math"] == SYNTHETIC["calm"][2] and printed["table5"] == read_table5(ablated)
    assert measured_tables(ablated).keys() == {"table1", "table5"}
    _print_results(ablated, [ablated], json=False)
    assert "Share of keys in D_C (CALM: 20%)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_finished_reproduction_is_given_ablations_which_reuse_it(tmp_path, capsys):
    chosen = ["ablations.every=[]", "ablations.encoder_aug=false", "ablations.further_training=false"]
    command = ["reproduce", "kv", "--preset", "smoke", "--out", str(tmp_path), "--json", "controls=false", *chosen]
    assert main(command) == 0
    made = {path: path.read_bytes() for path in tmp_path.glob("*/run.json")}
    first = [*command, "--ablations", "ablations.methods=[lora]", "ablations.vanilla_aug=false"]
    assert main(first) == 0
    assert {path: path.read_bytes() for path in made} == made
    capsys.readouterr()
    assert main([*command, "--ablations", "ablations.methods=[lora,full]"]) == 0
    rows = json.loads(capsys.readouterr().out)["table5"]["rows"]
    assert {"lora", "full", "vanilla_aug", "heads_1", "share_0.5", "calm"} <= rows.keys()
    assert abs(rows["lora"]["difference_percent"]) < 2
    stages = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}
    assert main([*command, "--ablations", "ablations.methods=[lora,full]"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")} == stages
