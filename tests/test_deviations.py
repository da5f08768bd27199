"""Departures from the paper: no setting of a composition is without its sentence."""

from dataclasses import fields, replace

import pytest

from calmctl.experiments.deviations import BRIDGE, COMPOSITION, NOT_THE_METHOD, composition_deviations
from calmctl.modeling.bridge import BridgeConfig
from calmctl.training.configs import ComposeConfig

PAPER = ComposeConfig(bridge=BridgeConfig(standardize=False, zero_init=False))
OTHER_BRIDGES = {
    "standardize": True,
    "num_heads": 3,
    "norm": True,
    "rotary": True,
    "recency": True,
    "gate": True,
    "dropout": 0.25,
    "zero_init": True,
}
OTHERS = {
    "augs": ("a", "b"), "connections": [[0, 1]], "every": 2, "num": 3, "aug_reads": "prompt", "random_aug": True,
    "segmentation": "chunks", "markers": {"<|im_end|>": "<eos>"}, "init_from": "runs/calm",
    "bridge": BridgeConfig(standardize=False, norm=True, zero_init=False),
}  # fmt: skip


def test_every_field_has_a_sentence_or_is_none_of_the_method():
    of_standardize = {"share", "per_dimension"}
    assert {field.name for field in fields(BridgeConfig)} == BRIDGE.keys() | of_standardize
    assert BRIDGE.keys() == OTHER_BRIDGES.keys()
    assert {field.name for field in fields(ComposeConfig)} == COMPOSITION.keys() | NOT_THE_METHOD
    assert COMPOSITION.keys() == OTHERS.keys() and not COMPOSITION.keys() & NOT_THE_METHOD


def test_the_papers_form_departs_in_nothing():
    assert composition_deviations(PAPER) == []


@pytest.mark.parametrize("name", OTHER_BRIDGES)
def test_every_option_of_bridges_is_told(name):
    needed = {"rotary": True} if name == "recency" else {}
    told, before = (
        composition_deviations(replace(PAPER, bridge=replace(PAPER.bridge, **needed, **more)))
        for more in ({name: OTHER_BRIDGES[name]}, {})
    )
    assert len(told) == 1 and told[0].startswith("bridges have ") and told != before


@pytest.mark.parametrize("name", OTHERS)
def test_every_option_of_compositions_is_told(name):
    assert len(composition_deviations(replace(PAPER, **{name: OTHERS[name]}))) == 1


def test_a_gate_and_not_the_output_begins_at_zero():
    (closed,) = composition_deviations(ComposeConfig(bridge=BridgeConfig(gate=True, dropout=0.1)))
    assert "a learned gate, closed at the start" in closed and "dropout of 0.1" in closed
    assert "zero-initialised" not in closed
    (opened,) = composition_deviations(ComposeConfig(bridge=BridgeConfig(gate=True, zero_init=False)))
    assert "a learned gate, open at the start" in opened
