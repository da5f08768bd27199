"""Key-value data whose models have tokenizers of their own: whose keys, and which files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from data_builders.errors import UserError
from data_builders.kv.build import build
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
