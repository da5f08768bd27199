"""Connections: which aug layer feeds which anchor layer.

Both indices are 0-based and name decoder layers whose OUTPUT is used (paper section 3.1).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from calmctl.errors import UserError


@dataclass(frozen=True, order=True)
class Connection:
    """The place of one bridge: the aug layer that it reads and the anchor layer whose output it adds to."""

    aug_layer: int
    anchor_layer: int


def default_connections(
    num_aug_layers: int, num_anchor_layers: int, every: int = 4, num: int | None = None
) -> tuple[Connection, ...]:
    """Tap every `every`-th aug layer, from the last one down, and spread the taps evenly over the anchor.

    The paper taps every 4th layer and does not say from where. With N_A aug layers there are n = N_A // every
    connections, at least one; the k-th goes from aug layer `N_A - 1 - every * (n - 1 - k)` to anchor layer
    `N_B * (k + 1) / n - 1`, rounded down. So the last layers of both are always connected: without the aug's last
    layers, bridges learn less and later (docs/results.md). With `num` there are that many connections, spread evenly
    over both models.

    Raises:
        UserError: `every` or `num` is out of range, or there would be more connections than anchor layers.
    """
    if num is not None:
        limit = min(num_aug_layers, num_anchor_layers)
        if not 1 <= num <= limit:
            raise UserError(
                f"num={num}: the aug has {num_aug_layers} layers and the anchor {num_anchor_layers}; "
                f"use 1 to {limit} connections"
            )
        return tuple(
            Connection(num_aug_layers * (k + 1) // num - 1, num_anchor_layers * (k + 1) // num - 1) for k in range(num)
        )
    if every < 1:
        raise UserError(f"every={every}: must be at least 1 (tap every n-th layer of the aug)")
    count = max(1, num_aug_layers // every)
    if count > num_anchor_layers:
        raise UserError(
            f"every={every} gives {count} connections, but the anchor has {num_anchor_layers} layers; "
            f"use a larger `every` or explicit connections"
        )
    return tuple(
        Connection(num_aug_layers - 1 - every * (count - 1 - k), num_anchor_layers * (k + 1) // count - 1)
        for k in range(count)
    )


def resolve_connections(
    connections: Sequence[Any] | None,
    nums_aug_layers: Sequence[int],
    num_anchor_layers: int,
    every: int = 4,
    num: int | None = None,
) -> list[tuple[Connection, ...]]:
    """Return the validated connections of every aug.

    Args:
        connections: explicit [aug_layer, anchor_layer] pairs, for several augs one list of pairs each; None = the
            default rule for all.
        nums_aug_layers: number of layers of each aug.
        every, num: of the default rule.

    Raises:
        UserError: a pair is malformed or out of range, one aug uses an anchor layer twice, there are more or fewer
            lists than augs, or `num` is given with explicit connections.
    """
    if connections is None:
        return [default_connections(count, num_anchor_layers, every, num) for count in nums_aug_layers]
    if num is not None:
        raise UserError(f"num={num} and explicit connections contradict each other; give one of them")
    if not isinstance(connections, Sequence) or isinstance(connections, str):
        raise UserError(f"connections: {connections!r} is not a list of [aug_layer, anchor_layer] pairs")
    if len(nums_aug_layers) == 1 and not (connections and _is_list_of_pairs(connections[0])):
        connections = [connections]
    if len(connections) != len(nums_aug_layers):
        raise UserError(
            f"connections: {len(connections)} lists for {len(nums_aug_layers)} augs; give one list of pairs per aug"
        )
    return [
        _explicit(pairs, count, num_anchor_layers) for pairs, count in zip(connections, nums_aug_layers, strict=True)
    ]


def _is_list_of_pairs(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Sequence)


def _explicit(pairs: Sequence[Any], num_aug_layers: int, num_anchor_layers: int) -> tuple[Connection, ...]:
    connections = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(index, int) for index in pair):
            raise UserError(f"connections: {pair!r} is not an [aug_layer, anchor_layer] pair of whole numbers")
        _check_range("aug", pair[0], num_aug_layers, pair)
        _check_range("anchor", pair[1], num_anchor_layers, pair)
        connections.append(Connection(*pair))
    if not connections:
        raise UserError("connections: the list is empty; give at least one [aug_layer, anchor_layer] pair")
    counts = Counter(connection.anchor_layer for connection in connections)
    if twice := [layer for layer, count in counts.items() if count > 1]:
        raise UserError(f"connections: anchor layer {twice[0]} is named twice; give each at most one pair")
    return tuple(sorted(connections, key=lambda connection: connection.anchor_layer))


def _check_range(role: str, index: int, count: int, pair: Sequence[int]) -> None:
    if not 0 <= index < count:
        raise UserError(
            f"connections: {role} layer {index} in {list(pair)} is out of range; the {role} has layers 0 to {count - 1}"
        )
