"""`calmctl reproduce adapters`: what it trains, what it refuses, and its tables beside the published ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from calmctl.baselines.configs import BaselineConfig
from calmctl.cli.main import main
from calmctl.config import load_config
from calmctl.errors import UserError
from calmctl.experiments.adapter_config import CHOICES, ReproduceAdaptersConfig
from calmctl.experiments.adapters import adapters_experiment
from calmctl.experiments.reproduction import experiment_stages
from calmctl.reporting.document.tables import Number, Text
from calmctl.reporting.results_file import load_results
from calmctl.reporting.sets_table import CONTAMINATED, GUESSED, TRAINED_ON, published_table, sets_tables
from data_builders.benchmarks.reasoning import ARITHMETIC, COMMONSENSE
from data_builders.kv.tokenizers import CUTS, build_byte_tokenizer
from tests.forked import forked_stages
from tests.report_folder import read, write

__all__ = ["forked_stages"]  # a fixture
BOOLQ = "Please answer the following question with true or false, question: is {} hot?\n\nAnswer format: true/false"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_byte_tokenizer(CUTS["pieces"], ["ab"], ["solve:"])
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=1024, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like `dataset` of LLM-Adapters, with a few rows of some sets."""
    folder = tmp_path_factory.mktemp("sets")
    for name, thing in (("AddSub", "pen"), ("mawps", "cup"), ("gsm8k", "pen")):
        asked = [{"instruction": f"Ada has {row} {thing}s . How many ?", "answer": str(row)} for row in range(4)]
        write(folder / name / "test.json", asked)
    for split, count in (("train", 20), ("test", 4)):
        rows = [
            {"instruction": BOOLQ.format(f"{split} {row}"), "output": "true", "answer": "true"} for row in range(count)
        ]
        write(folder / "boolq" / f"{split}.json", rows)
    sums = [
        {"original_text": f"Ada has {row} pens. How many?", "equation": f"X=({row}.0-2.0)", "ans": row - 2.0}
        for row in range(2, 14)
    ]
    write(folder / "mawps" / "trainset.json", sums)
    return folder


def settings(model: Path, sets: Path, *overrides: str, preset: str = "smoke") -> ReproduceAdaptersConfig:
    given = [f"anchor.base={model}", f"benchmarks={sets}", *overrides]
    return load_config(ReproduceAdaptersConfig, f"reproduce/adapters/{preset}", given)


def trainings(config: ReproduceAdaptersConfig, out: Path) -> dict[str, Any]:
    """Return the settings of every training by the stage's name."""
    stages = experiment_stages(adapters_experiment(config, out), out)
    return {stage.name: stage.config for stage in stages if stage.command[0] in ("baseline", "compose")}


def test_every_method_is_trained_once_a_seed_in_its_own_size(model: Path, sets: Path, tmp_path: Path) -> None:
    found = trainings(settings(model, sets, "num_bridge_seeds=2"), tmp_path)
    names = ("prefix", "prompt", "p_tuning", "series", "parallel", "lora", "full")
    assert list(found) == [stage for name in names for stage in (name, f"{name}_seed1")]
    sizes = {name: config.size for name, config in found.items() if "seed" not in name}
    assert sizes == {"prefix": 3, "prompt": 3, "p_tuning": 3, "series": 4, "parallel": 4, "lora": 2, "full": 0}
    assert {config.seed for config in found.values()} == {0, 1}


def test_ablations_are_the_studies_of_place_and_size(model: Path, sets: Path, tmp_path: Path) -> None:
    config = settings(model, sets, "ablate=true", "compare=[series,lora]", "num_control_seeds=1", "num_bridge_seeds=2")
    found = trainings(config, tmp_path)
    places = {name for name, choice in CHOICES.items() if choice.method in ("series", "lora")}
    assert found.keys() == places | {"series_seed1", "lora_seed1", "lora_rank_1", "series_width_2"}
    assert found["adapter_h"].where == "around_feed_forward" and found["lora_attention"].where == "attention"
    assert found["lora_rank_1"].size == 1 and found["series_width_2"].method == "series"


def test_published_adapters_are_placed_and_started_as_published(model: Path, sets: Path, tmp_path: Path) -> None:
    compared = "compare=[series_before,series,adapter_h,parallel,lora,prefix,full]"
    found: dict[str, BaselineConfig] = trainings(settings(model, sets, "published=true", compared), tmp_path)
    assert found["lora"].targets == ("llm_adapters",) and found["lora"].dropout == 0.05
    assert found["adapter_h"].targets == ("adapter_h",) and found["parallel"].targets == ("llm_adapters",)
    assert found["series"].targets == ("adapter_p",) and not found["series"].where
    assert {found[name].init for name in ("series_before", "series", "adapter_h", "parallel", "prefix")} == {
        "published"
    }
    assert found["full"].options.changed() == {} and found["full"].size == 0


def test_options_of_the_baseline_reach_the_methods_that_have_them(model: Path, sets: Path, tmp_path: Path) -> None:
    given = ("baseline.activation=relu", "baseline.dropout=0.1", "compare=[series,lora,prefix]")
    found = trainings(settings(model, sets, *given), tmp_path)
    assert (found["series"].activation, found["series"].dropout) == ("relu", 0.1)
    assert (found["lora"].activation, found["lora"].dropout) == ("tanh", 0.1)
    assert found["prefix"].options.changed() == {"where": "attention"} or not found["prefix"].options.changed()


def test_studies_leave_out_what_was_not_published_and_train_every_size(model: Path, sets: Path, tmp_path: Path) -> None:
    for preset in ("bloomz-7b", "gpt-j-6b"):
        given = [f"benchmarks={sets}", "ablate=true", "arithmetic.options.sets=[AddSub]", "data.validation_rows=2"]
        config = load_config(ReproduceAdaptersConfig, f"reproduce/adapters/{preset}", given)
        assert "series_before" not in trainings(config, tmp_path) and "series_attention" in trainings(config, tmp_path)
    ours = settings(
        model, sets, "ablate=true", "compare=[series_before]", "ablations.widths=[2,4,8]", "num_bridge_seeds=2"
    )
    found = trainings(ours, tmp_path)
    assert {"series_width_2", "series_width_4", "series_width_8", "series_before_seed1"} <= found.keys()
    aug = (f"aug.base={model}", "equal_parameters=true", "compare=[lora]", "ablate=true", "ablations.ranks=[1,2]")
    assert {"lora_rank_1", "lora_rank_2"} <= trainings(settings(model, sets, *aug), tmp_path).keys()


def test_what_m_b_cannot_have_is_told_before_anything_runs(
    model: Path, sets: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["reproduce", "adapters", "--preset", "smoke", "--anchor", str(model), "--data", str(sets)]
    own = ["arithmetic.options.sets=[AddSub]", "commonsense_likelihood.options.sets=[boolq]", "compare=[series,prompt]"]
    assert main([*command, "--out", str(tmp_path / "out"), *own, "virtual_tokens=2000"]) == 2
    assert "2000 virtual tokens leave no room in a context of 1024" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["llama-7b", "bloomz-7b", "gpt-j-6b", "smollm2"])
def test_models_that_are_not_here_are_planned(preset: str, sets: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["reproduce", "adapters", "--preset", preset, "--data", str(sets), "--out", str(tmp_path / "out")]
    only = "arithmetic.options.sets=[AddSub,mawps]"
    assert main([*command, only, "data.validation_rows=2", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    trained = {row["stage"]: row["trainable_parameters"] for row in plan["trainings"]}
    if preset == "llama-7b":
        # Sizes of the paper's own runs: 32 layers, width 256, rank 32.
        assert trained["series"] == 32 * 256 * 2 * 4096 and trained["adapter_h"] == 32 * 256 * 3 * 2 * 4096
        assert trained["lora"] == 32 * 32 * (3 * 2 * 4096 + 2 * (4096 + 11008))
        assert trained["parallel"] == 32 * 256 * 2 * (4096 + 11008)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overrides, message", [
    (["anchor.base="], "anchor.base is not set; give --anchor MODEL"),
    (["benchmarks="], "benchmarks is not set; give --data FOLDER"),
    (["compare=[luck]"], "'luck' is not one of prefix, prompt"),
    (["compare=[random_aug]"], "there is no composition without an m_A; give --aug MODEL"),
    (["equal_parameters=true"], "equal_parameters: there is no composition without an m_A"),
    (["width=0"], "width=0 must be at least 1"),
    (["baseline.where=both"], "baseline.where=both: the experiment decides that"),
    (["ablations.ranks=[4,4]"], "ranks=.*each named once"),
    (["commonsense_likelihood.options.protocol=llm-adapters"], "options.protocol=llm-adapters: it is likelihood"),
    (["published=true", "baseline.activation=relu"], "published=true says how adapters are built; leave baseline.act"),
    (["ablate=true", "compare=[full]"], "ablate: compare names no adapter"),
    (["data.data_folder=/nowhere"], "data.data_folder: --data says where the sets are"),
    (["anchor.train.steps=3"], "anchor and aug are models as they are here"),
])  # fmt: skip
def test_bad_settings_are_one_line(overrides: list[str], message: str, model: Path, sets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        adapters_experiment(settings(model, sets, *overrides), tmp_path)


def test_published_tables_are_whole_and_their_averages_their_own() -> None:
    for name in ("commonsense", "arithmetic", "arithmetic_withdrawn"):
        table = published_table(name)
        assert {*CONTAMINATED.get(name, ())} <= {*table.sets} == table.most_frequent.keys()
        known = {each.name: each.label for each in (*ARITHMETIC, *COMMONSENSE)}
        assert table.sets.items() <= known.items()
        for methods in table.bases.values():
            for figures in methods.values():
                assert len(figures) == len(table.sets) + 1
                assert abs(sum(figures[:-1]) / (len(figures) - 1) - figures[-1]) < 0.16
    with pytest.raises(KeyError):
        published_table("luck")


@pytest.mark.slow
@pytest.mark.usefixtures("forked_stages")
def test_an_experiment_runs_from_data_to_report(model: Path, sets: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    command = ["reproduce", "adapters", "--preset", "smoke", "--anchor", str(model), "--aug", str(model)]
    given = [
        "--data", str(sets), "--out", str(out), "data.overlaps=keep", "arithmetic.options.sets=[AddSub,mawps,gsm8k]",
        "commonsense_likelihood.options.sets=[boolq]", "equal_parameters=true", "compare=[lora,random_aug]",
    ]  # fmt: skip
    assert main([*command, *given]) == 0
    printed = capsys.readouterr().out
    results = read(out / "results.json")
    assert [system["key"] for system in results["systems"]] == ["m_A", "m_B", "calm", "lora", "random_aug"]
    differences = [run["difference_percent"] for s in results["systems"] for run in s["runs"] if s["key"] != "calm"]
    assert all(abs(found) < 5 for found in differences if found is not None)
    assert "Published: LLaMA-7B" in printed and "in training files: 2 of 4 of GSM8K, 2 of 4 of AddSub" in " ".join(
        printed.split()
    )
    tables = sets_tables(load_results(out))
    assert [table.title.partition(",")[0] for table in tables] == [
        "Arithmetic sets", "Arithmetic sets", "Commonsense sets by likelihood",
    ]  # fmt: skip
    asked, withdrawn, chosen = tables
    # Ours come first; published rows have some of their labels.
    by_label = {cell.text: row for row in reversed(withdrawn.rows) if isinstance(cell := row[0], Text)}
    place = [column.label for column in withdrawn.columns].index("AddSub")
    # Ours were trained on questions of AddSub and GSM8K too, as the data was asked to keep them; m_B was not.
    for column, mark in (("AddSub", TRAINED_ON), ("GSM8K", TRAINED_ON), ("MAWPS", "")):
        at = [each.label for each in withdrawn.columns].index(column)
        for label, own in (("LoRA", mark), ("CALM", mark), ("m_B alone", "")):
            assert isinstance(cell := by_label[label][at], Number) and cell.mark == own, (column, label)
    assert isinstance(cell := by_label["GPT-3.5"][place], Number) and (cell.value, cell.mark) == (85.3, "")
    # The published means are over sets that ours did not all measure.
    assert by_label["LoRA"][-1] == by_label["CALM"][-1] == Text("–") != by_label["GPT-3.5"][-1]
    guessed = {cell.text: row for row in chosen.rows if isinstance(cell := row[0], Text)}
    assert isinstance(cell := guessed["most frequent answer"][2], Number) and cell.value == 100
    assert isinstance(cell := guessed["LoRA"][2], Number) and cell.mark == GUESSED
    assert "The models were trained on test questions of gsm8k, AddSub" in (out / "report.md").read_text()
    assert (out / "report.html").is_file()
