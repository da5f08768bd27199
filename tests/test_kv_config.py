"""Key-value settings: every constraint, and the shipped presets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from data_builders.errors import UserError
from data_builders.kv.build import KVDataConfig, build
from tests.kv_settings import SMALL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_keys": 4, "num_values": 4}, "num_keys: 4 is too few"),
        ({"held_in_fraction": 0.05}, "leaves 3 held-in keys, fewer than max_operands"),
        ({"held_in_fraction": 0.95}, "held-out keys, fewer than max_operands"),
        ({"held_in_fraction": 1.5}, "between 0 and 1"),
        ({"num_values": 61}, "num_values: 61 is more than num_keys"),
        ({"operators": "+/"}, "operators: '\\+/'"),
        ({"operators": "++"}, "distinct signs"),
        ({"operators": ""}, "distinct signs"),
        ({"number_format": "roman"}, "number_format: 'roman'"),
        ({"mix_direct": 0.5}, "must sum to 1"),
        ({"mix_direct": -0.1, "mix_stepwise": 0.95}, "must not be negative"),
        ({"context_fraction": 1.1}, "context_fraction"),
        ({"min_operands": 6}, "min_operands: 6 is more than max_operands"),
        ({"min_operands": 1}, "min_operands: 1 is too small"),
        ({"seed": -1}, "seed: -1"),
        ({"num_test_rows": 12_000}, "num_test_rows: 12000 is more than the 11880 distinct held_in"),
        ({"aug_operand_weights": (1.0,)}, "1 weights for the 3 operand counts 3..5"),
        ({"aug_operand_weights": (0.0, 0.0, 0.0)}, "not all zero"),
        ({"max_key_length": 1}, "max_key_length: 1"),
    ],
)
def test_bad_settings_are_one_line_naming_the_setting(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        replace(SMALL, **changes)
    assert "\n" not in str(caught.value)


def test_too_many_keys_for_the_letter_strings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="700 is more than the 676 strings of 2 to 2 letters"):
        build(replace(SMALL, num_keys=700, max_key_length=2), tmp_path / "data")


def test_every_preset_is_a_valid_config_and_names_its_command() -> None:
    paths = sorted((Path(__file__).parents[1] / "conf" / "data" / "kv").glob("*.yaml"))
    assert [path.stem for path in paths] == ["paper", "smoke", "tiny"]
    for path in paths:
        text = path.read_text()
        KVDataConfig(**yaml.safe_load(text))
        assert text.startswith(f"# calmctl data kv --preset {path.stem} ")
