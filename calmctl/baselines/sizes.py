"""Sizes: how large the adapters have to be for a number of trainable parameters."""

from collections.abc import Mapping

from calmctl.errors import UserError

# By how many percent numbers of parameters may differ that count as equal; adapters of real models come far nearer.
MOST_PERCENT = 5.0


def matched_sizes(units: Mapping[str, int], target: int) -> dict[str, int]:
    """Return the size of each adapter, so that all together come as near to a number of parameters as they can.

    All adapters get one size, the largest that stays below the target. What is missing is made up by one more for some
    of them, those first to which one more adds most. Adapters of size 0 are left out.

    Args:
        units: parameters that one more of its size (a rank, a virtual token, ...) adds to each adapter.
        target: trainable parameters.

    Raises:
        UserError: the target is too small for any adapter, or they do not come near it.
    """
    uniform, missing = divmod(target, sum(units.values()))
    sizes = dict.fromkeys(units, uniform)
    for name in sorted(units, key=lambda name: -units[name]):
        if units[name] <= missing:
            sizes[name] += 1
            missing -= units[name]
    smallest = min((name for name in units if sizes[name] == uniform), key=lambda name: units[name])
    if abs(missing - units[smallest]) < missing:
        sizes[smallest] += 1
    if not any(sizes.values()):
        raise UserError(f"{target} trainable parameters are too few: the smallest adapter has {min(units.values())}")
    found = sum(units[name] * size for name, size in sizes.items())
    if abs(percent := difference_percent(found, target)) > MOST_PERCENT:
        raise UserError(
            f"{target} trainable parameters cannot be had: the nearest that these adapters come to is {found} "
            f"({percent:+.1f} percent; {MOST_PERCENT:g} count as equal)"
        )
    return {name: size for name, size in sizes.items() if size}


def difference_percent(parameters: int, target: int) -> float:
    """Return by how many percent a number of parameters differs from the one wanted."""
    return 100 * (parameters - target) / target
