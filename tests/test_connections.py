"""Connections: the paper's default rule, and explicit pairs checked against both models."""

import pytest

from calmctl.errors import UserError
from calmctl.modeling.connections import Connection, default_connections, resolve_connections


@pytest.mark.parametrize("num_aug_layers, num_anchor_layers, every, expected", [
    (8, 16, 4, [(3, 7), (7, 15)]),
    (12, 16, 4, [(3, 4), (7, 9), (11, 15)]),
    (3, 3, 1, [(0, 0), (1, 1), (2, 2)]),
    (2, 5, 4, [(1, 4)]),
    (9, 4, 4, [(4, 1), (8, 3)]),
    (18, 30, 4, [(5, 6), (9, 14), (13, 21), (17, 29)]),
    (3, 6, 2, [(2, 5)]),
])  # fmt: skip
def test_the_default_rule_taps_every_nth_layer_and_spreads_over_the_anchor(
    num_aug_layers, num_anchor_layers, every, expected
):
    found = default_connections(num_aug_layers, num_anchor_layers, every)
    assert [(pair.aug_layer, pair.anchor_layer) for pair in found] == expected


@pytest.mark.parametrize("num_aug_layers", range(1, 20))
@pytest.mark.parametrize("every", [1, 2, 4])
def test_default_connections_are_in_range_ordered_and_distinct(num_aug_layers, every):
    found = default_connections(num_aug_layers, 20, every)
    assert len(found) == max(1, num_aug_layers // every)
    for indices, count in (([p.aug_layer for p in found], num_aug_layers), ([p.anchor_layer for p in found], 20)):
        assert indices == sorted(set(indices)) and 0 <= indices[0] and indices[-1] < count
    assert found[-1] == Connection(num_aug_layers - 1, 19)
    assert {pair.aug_layer % every for pair in found} == {(num_aug_layers - 1) % every}


def test_explicit_pairs_are_for_one_aug_or_one_list_each():
    assert resolve_connections([[1, 0], [0, 2]], [2], 3) == [(Connection(1, 0), Connection(0, 2))]
    assert resolve_connections([[[1, 0]]], [2], 3) == [(Connection(1, 0),)]
    assert resolve_connections([[[1, 0]], [[3, 2]]], [2, 4], 3) == [(Connection(1, 0),), (Connection(3, 2),)]
    assert resolve_connections(None, [4, 8], 8) == [default_connections(4, 8), default_connections(8, 8)]


@pytest.mark.parametrize("pairs, message", [
    ([], "list is empty"),
    ([[0, 3]], "anchor layer 3 .* layers 0 to 2"),
    ([[2, 0]], "aug layer 2 .* layers 0 to 1"),
    ([[-1, 0]], "aug layer -1"),
    ([[0]], "not an .* pair"),
    ([[0, 1.5]], "whole numbers"),
    ([0, 1], "not an .* pair"),
    ([[0, 1], [1, 1]], "named twice"),
    ([[[0, 1]], [[0, 1]]], "2 lists for 1 augs"),
])  # fmt: skip
def test_bad_pairs_are_one_clear_error(pairs, message):
    with pytest.raises(UserError, match=message):
        resolve_connections(pairs, [2], 3)


@pytest.mark.parametrize("num_aug_layers, num_anchor_layers, num, expected", [
    (6, 12, 3, [(1, 3), (3, 7), (5, 11)]),
    (5, 3, 2, [(1, 0), (4, 2)]),
    (4, 4, 4, [(0, 0), (1, 1), (2, 2), (3, 3)]),
])  # fmt: skip
def test_a_number_of_connections_is_spread_over_both_models(num_aug_layers, num_anchor_layers, num, expected):
    found = default_connections(num_aug_layers, num_anchor_layers, num=num)
    assert [(pair.aug_layer, pair.anchor_layer) for pair in found] == expected


def test_bad_rules_are_one_clear_error():
    with pytest.raises(UserError, match="num=4: .* 6 layers and the anchor 3; use 1 to 3"):
        default_connections(6, 3, num=4)
    with pytest.raises(UserError, match="num=2 and explicit connections"):
        resolve_connections([[0, 0]], [2], 3, num=2)
    with pytest.raises(UserError, match="every=0"):
        default_connections(4, 4, 0)
    with pytest.raises(UserError, match="8 connections, but the anchor has 4 layers"):
        default_connections(8, 4, 1)
    with pytest.raises(UserError, match="connections: 5 is not a list"):
        resolve_connections(5, [2], 3)
