"""Connections: which aug layer feeds which anchor layer.

Both indices are 0-based and name decoder layers whose OUTPUT is used (paper section 3.1).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from calmctl.errors import UserError


@dataclass(frozen=True, order=True)
class Connection:
    """One bridge's place: the aug layer that is read and the anchor layer whose output is augmented."""

    aug_layer: int
    anchor_layer: int


def default_connections(num_aug_layers: int, num_anchor_layers: int, every: int = 4) -> tuple[Connection, ...]:
    """Tap every `every`-th aug layer and spread the taps evenly over the anchor (paper: every 4th layer).

    With N_A aug layers there are n = N_A // every connections, at least one; the k-th goes from aug layer
    `every * (k + 1) - 1` to anchor layer `N_B * (k + 1) / n - 1`, rounded down, so that the last layers meet.

    Raises:
        UserError: `every` is not positive, or there would be more connections than anchor layers.
    """
    if every < 1:
        raise UserError(f"every={every}: must be at least 1 (tap every n-th layer of the aug)")
    count = max(1, num_aug_layers // every)
    if count > num_anchor_layers:
        raise UserError(
            f"every={every} gives {count} connections, but the anchor has {num_anchor_layers} layers; "
            f"use a larger `every` or explicit connections"
        )
    stride = min(every, num_aug_layers)
    return tuple(Connection(stride * (k + 1) - 1, num_anchor_layers * (k + 1) // count - 1) for k in range(count))


def resolve_connections(
    pairs: Iterable[Sequence[int]] | None, num_aug_layers: int, num_anchor_layers: int, every: int = 4
) -> tuple[Connection, ...]:
    """Return validated connections from explicit [aug_layer, anchor_layer] pairs, or the default rule for None.

    Raises:
        UserError: a pair is malformed or out of range, or an anchor layer is used twice by one aug.
    """
    if pairs is None:
        return default_connections(num_aug_layers, num_anchor_layers, every)
    connections = []
    for pair in pairs:
        if len(pair) != 2:
            raise UserError(f"connections: {list(pair)} is not an [aug_layer, anchor_layer] pair")
        aug_layer, anchor_layer = (int(index) for index in pair)
        _check_range("aug", aug_layer, num_aug_layers, pair)
        _check_range("anchor", anchor_layer, num_anchor_layers, pair)
        connections.append(Connection(aug_layer, anchor_layer))
    if not connections:
        raise UserError("connections: the list is empty; give at least one [aug_layer, anchor_layer] pair")
    targets = [connection.anchor_layer for connection in connections]
    if len(set(targets)) != len(targets):
        raise UserError(f"connections: an anchor layer is named twice in {[list(p) for p in pairs]}")
    return tuple(sorted(connections, key=lambda connection: connection.anchor_layer))


def _check_range(role: str, index: int, count: int, pair: Sequence[int]) -> None:
    if not 0 <= index < count:
        raise UserError(
            f"connections: {role} layer {index} in {list(pair)} is out of range; the {role} has layers 0 to {count - 1}"
        )
