"""Key-value data and experiments whose models have tokenizers of their own: whose keys, which files, which stages."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from calmctl.cli.main import main
from calmctl.config import load_config
from calmctl.errors import UserError
from calmctl.experiments.kv import base_configs, kv_stages
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.stages import Stage
from calmctl.reporting.kv_results import ONE_TOKENIZER
from data_builders.kv.build import build
from data_builders.values import read_json
from evals.kv import KVTask
from tests.kv_settings import SMALL

SHARED_OUT = replace(SMALL, num_keys=160, anchor_cut="pieces", aug_cuts=("words", "words_triples"))
CUTS = {"tokenizer": "pieces", "tokenizer_aug": "words", "tokenizer_aug2": "words_triples"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kv") / "data"
    build(SHARED_OUT, out)
    return out


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in pq.read_table(folder / "keys.parquet").to_pylist()}


def owners(expression: str, keys: dict[str, dict[str, Any]]) -> set[int]:
    return {keys[word]["aug"] for word in expression.split()[::2]}


def test_tokenizers_change_no_row(tmp_path: Path) -> None:
    plain = build(SMALL, tmp_path / "plain")["files"]
    cut = build(replace(SMALL, anchor_cut="pieces", aug_cuts=("words",)), tmp_path / "cut")["files"]
    assert {name: cut[name] for name in plain if name.endswith(".parquet")} == {
        name: entry for name, entry in plain.items() if name.endswith(".parquet")
    }


def test_keys_are_shared_out_evenly_within_values_and_held_in(keys: dict[str, dict[str, Any]]) -> None:
    held_in = Counter((row["aug"], row["held_in"]) for row in keys.values())
    assert held_in == {(1, True): 16, (2, True): 16, (1, False): 64, (2, False): 64}
    of_value = Counter((row["aug"], row["value"]) for row in keys.values())
    assert set(of_value.values()) <= {3, 4, 5} and len(of_value) == 2 * SHARED_OUT.num_values


@pytest.mark.parametrize(("aug", "name"), [(1, "aug_train.parquet"), (2, "aug2_train.parquet")])
def test_each_aug_learns_its_own_keys_and_nothing_of_the_others(
    folder: Path, keys: dict[str, dict[str, Any]], aug: int, name: str
) -> None:
    written: dict[str, list[int]] = {key: [] for key in keys}
    for row in pq.read_table(folder / name).to_pylist():
        shown = row["prompt"].partition(": ")[2].split()[:-1:2]
        for key, number in zip(shown, row["completion"].split()[:-1:2], strict=True):
            written[key].append(int(number))
    right = {1: [], 2: []}
    for key, numbers in written.items():
        right[keys[key]["aug"]] += [number == keys[key]["value"] for number in numbers]
    assert all(right[aug]) and len(right[aug]) > 1000
    assert np.mean(right[3 - aug]) == pytest.approx(1 / SHARED_OUT.num_values, abs=0.02)


def test_composition_data_has_keys_of_both(folder: Path, keys: dict[str, dict[str, Any]]) -> None:
    prompts = pq.read_table(folder / "dc_mix.parquet")["prompt"].to_pylist()
    shown = [prompt.partition(": ")[2].partition(" =")[0] for prompt in prompts if prompt.startswith("substitute")]
    assert {tuple(sorted(owners(expression, keys))) for expression in shown} == {(1,), (2,), (1, 2)}


def test_each_tokenizer_has_its_own_keys_as_words(folder: Path, keys: dict[str, dict[str, Any]]) -> None:
    for name, cut in CUTS.items():
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        lengths = {key: len(tokenizer(f" {key}")["input_ids"]) for key in keys if len(key) > 2}
        whole = {key for key, length in lengths.items() if length == 1}
        number = {"tokenizer_aug": 1, "tokenizer_aug2": 2}.get(name)
        assert whole == {key for key in lengths if keys[key]["aug"] == number}, cut


def test_tests_are_drawn_and_scored_by_whose_keys_they_have(folder: Path, keys: dict[str, dict[str, Any]]) -> None:
    records = KVTask().load(folder)
    assert len(records) == 3 * 3 * 3 * SHARED_OUT.num_test_rows
    for record in records:
        assert record.augs == "+".join(map(str, sorted(owners(record.keys, keys))))
    answers = {
        f"{record.id}/{request}": [record.reference(request) if record.augs == "1+2" else ""]
        for record in records
        for request in ("substitute", "solve_numbers", "solve_keys")
    }
    groups = KVTask().score(records, answers).breakdown["by_augs"]
    assert {augs: (group["n"], group["kv_math"]) for augs, group in groups.items()} == {
        "1": (24, 0.0), "2": (24, 0.0), "1+2": (24, 100.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aug_cuts": ()}, "set both or neither"),
        ({"anchor_cut": None}, "set both or neither"),
        ({"anchor_cut": "halves"}, "anchor_cut: 'halves' is unknown; use one of pieces"),
        ({"aug_cuts": ("words", "halves")}, "aug_cuts: 'halves' is unknown"),
        ({"aug_cuts": ("words",) * 3}, "3 are more than 2"),
        ({"tokenizer": "gpt2"}, "tokenizer: 'gpt2' is for all models"),
        ({"num_keys": 40, "num_values": 20}, "leaves 8 held-in keys for 2 m_As, fewer than max_operands"),
    ],
)
def test_bad_cuts_are_one_line_naming_the_setting(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        replace(SHARED_OUT, **changes)
    assert "\n" not in str(caught.value)


# Experiments


def configured(*overrides: str, preset: str = "two-tokenizers") -> ReproduceKVConfig:
    return load_config(ReproduceKVConfig, f"reproduce/kv/{preset}", [f"preset={preset}", *overrides])


def stages(config: ReproduceKVConfig) -> dict[str, Stage]:
    return {stage.name: stage for stage in kv_stages(config, Path("/out"))}


def tokenizers(found: dict[str, Stage]) -> dict[str, str]:
    return {
        name: Path(stage.settings["tokenizer"]).name for name, stage in found.items() if stage.command[0] == "train"
    }


def test_models_are_trained_with_tokenizers_of_their_own() -> None:
    found = stages(configured())
    assert tokenizers(found) == {
        "anchor": "tokenizer",
        "aug": "tokenizer_aug",
        "aug_random": "tokenizer_aug",
        "aug_one_tokenizer": "tokenizer",
    }
    one, own = (found[name].settings for name in ("aug_one_tokenizer", "aug"))
    assert {name for name in own if own[name] != one[name]} == {"tokenizer"}
    one, own = (found[name].settings for name in ("calm_one_tokenizer", "calm"))
    assert {name for name in own if own[name] != one[name]} == {"augs"}


def test_several_augs_are_composed_at_once() -> None:
    found = stages(configured("data.aug_cuts=[words,words_triples]", "compare=[random_aug]"))
    assert tokenizers(found) == {
        "anchor": "tokenizer",
        **{"aug": "tokenizer_aug", "aug2": "tokenizer_aug2"},
        **{"aug_random": "tokenizer_aug", "aug_random2": "tokenizer_aug2"},
    }
    assert found["calm"].settings["augs"] == ["/out/aug", "/out/aug2"]
    assert found["calm_random_aug"].settings["augs"] == ["/out/aug_random", "/out/aug_random2"]
    assert found["aug2"].settings["dataset"] == "/out/data/aug2_train.parquet"
    assert found["calm"].needs == ("anchor", "aug", "aug2") and "eval/aug2" in found


def test_a_plan_has_the_sizes_of_the_models_to_come(tmp_path: Path) -> None:
    config = configured("data.aug_cuts=[words,words_triples]", "data.num_keys=200", "data.num_values=20")
    build(replace(config.data, num_anchor_rows=10, num_aug_rows=10, num_composition_rows=10, num_test_rows=1), tmp_path)
    anchor, augs = base_configs(config)
    sizes = [len(AutoTokenizer.from_pretrained(tmp_path / name)) for name in CUTS]
    assert [model.vocab_size for model in (anchor, *augs)] == sizes


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compare=[vanilla]", "'vanilla' is not one of random_aug, dc_subs, dc_math, one_tokenizer"),
        ("compare=[dc_subs,dc_subs]", "names dc_subs twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        configured(override)
    with pytest.raises(UserError, match=r"compare names one_tokenizer.*set data\.anchor_cut"):
        configured("compare=[one_tokenizer]", preset="tiny")


@pytest.mark.slow
def test_an_experiment_with_two_augs_runs_from_data_to_report(tmp_path: Path) -> None:
    cuts = ["data.anchor_cut=pieces", "data.aug_cuts=[words,words_triples]", "compare=[one_tokenizer]"]
    sizes = ["data.num_keys=80", "data.num_test_rows=2", "anchor.train.steps=5", "aug.train.steps=5", "jobs=2"]
    command = ["reproduce", "kv", "--preset", "smoke", "--out", str(tmp_path), *cuts, *sizes, "compose.train.steps=3"]
    assert main(command) == 0
    table = read_json(tmp_path / "table1.json")
    assert {"m_A", "m_A2", "m_B", "calm", "one_tokenizer"} <= table.keys() and "random_aug" not in table
    assert list(table["calm_by_augs"]) == ["1", "2", "1+2"]
    report = (tmp_path / "report.md").read_text()
    assert "whose keys" in report and ONE_TOKENIZER.label in report
    read = read_json(tmp_path / "calm" / "model" / "config.json")["segmentations"]
    assert len(read) == 2 and None not in read
    alike = read_json(tmp_path / "calm_one_tokenizer" / "model" / "config.json")["segmentations"]
    assert alike == [None, None]
