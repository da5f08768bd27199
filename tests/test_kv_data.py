"""Key-value data: what a build promises, checked on the files it writes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders.errors import UserError
from data_builders.files import sha256_file
from data_builders.kv.build import TRAINING_FILES, build, spread_over
from data_builders.kv.test_set import EvalSet, count_overlaps
from data_builders.kv.text import OPERATORS, parse_expression
from data_builders.manifest import read_manifest
from tests.kv_settings import SMALL

COMPOSITION = ("dc_subs.parquet", "dc_math.parquet", "dc_mix.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kv") / "data"
    build(SMALL, out)
    return out


def rows(folder: Path, name: str) -> list[dict]:
    return pq.read_table(folder / name).to_pylist()


def key_values(folder: Path) -> dict[str, int]:
    return {row["key"]: row["value"] for row in rows(folder, "keys.parquet")}


def exact(expression: str) -> int:
    return eval(re.sub(r"\b0+(?=[0-9])", "", expression).replace("x", "*"))


def substituted(expression: str, values: dict[str, int]) -> str:
    return " ".join(word if word in OPERATORS else str(values[word]) for word in expression.split())


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(folder: Path, tmp_path: Path) -> None:
    again = build(SMALL, tmp_path / "again")
    other = build(replace(SMALL, seed=4), tmp_path / "other")
    assert again == read_manifest(folder)
    for name, entry in again["files"].items():
        assert sha256_file(tmp_path / "again" / name) == entry["sha256"]
        if name.endswith(".parquet"):
            assert other["files"][name]["sha256"] != entry["sha256"]


def test_size_of_one_training_set_changes_no_other_file(folder: Path, tmp_path: Path) -> None:
    other = build(replace(SMALL, num_aug_rows=50), tmp_path / "other")["files"]
    same = read_manifest(folder)["files"]
    assert [name for name in same if same[name] != other[name]] == ["aug_train.parquet"]


def test_every_row_says_what_its_keys_and_numbers_say(folder: Path) -> None:
    values = key_values(folder)
    held_in = {row["key"] for row in rows(folder, "keys.parquet") if row["held_in"]}
    numbers = SMALL.numbers
    for name in TRAINING_FILES:
        for row in rows(folder, name):
            verb, _, text = row["prompt"].partition(": ")
            *contexts, expression = [part.strip() for part in text.removesuffix("=").split("=")]
            completion, meta = row["completion"], row["meta"]
            kind = meta["kind"]
            is_keys = expression[0].isalpha()
            shown = [word for word in [*expression.split(), *" ".join(contexts).split()] if word in values]
            assert verb == ("solve" if kind in ("direct", "num_math") else "substitute")
            assert is_keys == (kind in ("kv_subs", "stepwise", "direct"))
            assert len(contexts) == (kind == "num_math_context")
            assert meta["num_operands"] == len(expression.split()[::2])
            assert meta["num_held_in"] == sum(word in held_in for word in shown)
            plain = substituted(expression, values) if is_keys else expression
            written = " ".join(w if w in OPERATORS else numbers.operand(int(w)) for w in plain.split())
            value = numbers.result(exact(plain))
            expected = {"kv_subs": f" {written} =", "stepwise": f" {written} = {value}"}.get(kind, f" {value}")
            assert completion == expected


def test_no_test_expression_is_in_any_training_file(folder: Path) -> None:
    tests = rows(folder, "test.parquet")
    test_keys = {row["keys"] for row in tests}
    test_numbers = {parse_expression(row["numbers"]) for row in tests}
    assert len(test_keys) == len(tests)
    for name in TRAINING_FILES:
        for row in rows(folder, name):
            parts = {part.strip() for part in re.split("[:=]", row["prompt"] + row["completion"])}
            assert not parts & test_keys
            if name != "aug_train.parquet":
                assert not {parse_expression(part) for part in parts} & test_numbers
    assert read_manifest(folder)["overlap"] == {"train_test_expressions": 0, "train_test_numbers": 0}


def test_overlap_check_finds_a_test_expression_wherever_it_stands(tmp_path: Path) -> None:
    texts = [
        "substitute: ab + cd =",
        "solve: cd - ab =",
        "substitute: ab + cd = 1 + 2 =",
        "solve: ab + cde =",
    ]
    table = pa.table({"prompt": texts, "completion": [" 1 + 2 = 3", " 1", " 3", " 4"]})
    pq.write_table(table, tmp_path / "train.parquet")

    def overlaps(*tests: str) -> int:
        return count_overlaps(tmp_path, ["train.parquet"], pa.chunked_array([list(tests)]))

    assert overlaps("ab + cd") == 2
    assert overlaps("cd - ab") == 1
    assert overlaps("1 + 2") == 2
    assert overlaps("ab + c", "b + cd") == 0


def test_composition_data_shows_held_in_keys_only_and_every_operand_count(folder: Path) -> None:
    held_in = {row["key"] for row in rows(folder, "keys.parquet") if row["held_in"]}
    for name in COMPOSITION:
        shown = {word for row in rows(folder, name) for word in re.findall(r"[a-z]{2,6}\b(?!:)", row["prompt"])}
        assert shown <= held_in
        assert {row["meta"]["num_operands"] for row in rows(folder, name)} == {3, 4, 5}


def test_held_in_keys_are_a_fifth_and_spread_evenly_over_the_values(tmp_path: Path) -> None:
    for config in (SMALL, replace(SMALL, num_values=60), replace(SMALL, num_values=12, held_in_fraction=0.4)):
        out = tmp_path / str(config.num_values)
        build(config, out)
        keys = rows(out, "keys.parquet")
        share = config.held_in_fraction * config.num_keys / config.num_values
        assert sum(key["held_in"] for key in keys) == config.num_held_in
        for value in range(1, config.num_values + 1):
            of_value = [key["held_in"] for key in keys if key["value"] == value]
            assert len(of_value) == config.num_keys // config.num_values
            assert np.floor(share) <= sum(of_value) <= np.ceil(share)


def test_keys_values_and_tokenizer_are_the_same_for_every_share_of_held_in_keys(tmp_path: Path) -> None:
    one, other = (tmp_path / "0.3", tmp_path / "0.6")
    for out in (one, other):
        build(replace(SMALL, held_in_fraction=float(out.name)), out)
        assert sum(row["held_in"] for row in rows(out, "keys.parquet")) == round(float(out.name) * SMALL.num_keys)
    assert key_values(one) == key_values(other)
    assert len({sha256_file(out / "tokenizer" / "tokenizer.json") for out in (one, other)}) == 1


def test_strata_hold_what_their_names_say_and_prefixes_are_balanced(folder: Path) -> None:
    values = key_values(folder)
    held_in = {row["key"]: row["held_in"] for row in rows(folder, "keys.parquet")}
    tests = rows(folder, "test.parquet")
    assert len(tests) == 3 * 3 * SMALL.num_test_rows == len({row["id"] for row in tests})
    for row in tests:
        keys = row["keys"].split()[::2]
        count = sum(held_in[key] for key in keys)
        stratum = "held_out" if count == 0 else "held_in" if count == len(keys) else "mixed"
        assert (row["num_held_in"], row["stratum"], row["num_operands"]) == (count, stratum, len(keys))
        assert len(set(keys)) == len(keys)
        assert parse_expression(row["numbers"]) == substituted(row["keys"], values).replace(" ", "")
        assert int(row["value"]) == exact(row["numbers"])
    groups = [(row["stratum"], row["num_operands"]) for row in tests[:18]]
    assert sorted(groups) == sorted(2 * list(set(groups)))


def test_shares_and_weights_are_met_exactly(tmp_path: Path) -> None:
    config = replace(SMALL, mix_stepwise=0.5, mix_direct=0.3, mix_num_math=0.2, composition_operand_weights=(0, 1, 2))
    manifest = build(config, tmp_path / "data")
    mix = manifest["statistics"]["dc_mix.parquet"]
    assert mix["kinds"] == {"stepwise": 300, "direct": 180, "num_math": 120}
    assert mix["num_operands"] == {"4": 200, "5": 400}
    contexts = manifest["statistics"]["anchor_train.parquet"]["kinds"]
    assert contexts == {"num_math": 600, "num_math_context": 600}
    assert spread_over(range(3, 7), 10, None) == {3: 3, 4: 3, 5: 2, 6: 2}


def test_small_spaces_repeat_training_rows(tmp_path: Path) -> None:
    config = replace(SMALL, num_values=3, num_anchor_rows=4000, anchor_operand_weights=(1, 0, 0, 0))
    manifest = build(config, tmp_path / "data")
    assert manifest["counts"]["rows"]["anchor_train.parquet"] == 4000
    assert manifest["counts"]["distinct_expressions"]["anchor_train.parquet"] <= 27


def test_manifest_counts_what_the_files_hold(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, count in manifest["counts"]["rows"].items():
        assert pq.read_metadata(folder / name).num_rows == count
    results = manifest["statistics"]["test.parquet"]["results"]
    values = [int(row["value"]) for row in rows(folder, "test.parquet")]
    assert (results["min"], results["max"]) == (min(values), max(values))
    lengths = [len(str(abs(value))) for value in values]
    assert results["digits"] == {str(n): lengths.count(n) for n in sorted(set(lengths))}
    assert manifest["counts"]["held_in_keys"] == 12


@pytest.mark.parametrize("excluding", ["without_keys", "without_numbers"])
def test_build_that_forgets_to_exclude_tests_fails_its_own_check(
    excluding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMALL, num_keys=30, num_values=3, operators="+", num_test_rows=30, num_aug_rows=20_000)
    monkeypatch.setattr(EvalSet, excluding, lambda self, block: np.ones(len(block), dtype=bool))
    with pytest.raises(UserError, match="test expressions in the training files"):
        build(config, tmp_path / "data")
    with pytest.raises(UserError, match="unfinished build"):
        read_manifest(tmp_path / "data")
