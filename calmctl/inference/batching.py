"""Batching: which completions are generated together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from calmctl.inference.prefix import common_prefix
from calmctl.inference.prompt import FittedPrompts

# A completion to make: which prompt, and which of its samples.
Row = tuple[int, int]


@dataclass(frozen=True)
class Group:
    """Prompts that end alike and have their shots in common: rows of one batch as far as possible."""

    max_new_tokens: int
    stop: tuple[str, ...]
    shots: tuple[str, ...]


def groups_of(fitted: FittedPrompts) -> list[Group]:
    """Return the group of each prompt."""
    return [Group(prompt.max_new_tokens, prompt.stop, prompt.shots) for prompt in fitted.prompts]


def batches(
    rows: Sequence[Row], fitted: FittedPrompts, groups: Sequence[Group], batch_size: int, equal_lengths: bool = False
) -> Iterator[list[Row]]:
    """Yield batches, the longest prompts of each group first; a batch shares how its completions end.

    Args:
        equal_lengths: put prompts of one length only into a batch, of whatever groups.
    """
    order = {group: 0 if equal_lengths else number for number, group in enumerate(dict.fromkeys(groups))}

    def key(row: Row) -> tuple[int, tuple[str, ...], int, int, Row]:
        group = groups[row[0]]
        return -group.max_new_tokens, group.stop, order[group], -len(fitted.ids[row[0]]), row

    def shared(row: Row) -> tuple[int, tuple[str, ...], int]:
        group = groups[row[0]]
        return group.max_new_tokens, group.stop, len(fitted.ids[row[0]]) if equal_lengths else 0

    batch: list[Row] = []
    for row in sorted(rows, key=key):
        if batch and (len(batch) == batch_size or shared(row) != shared(batch[0])):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def shared_tokens(fitted: FittedPrompts, groups: Sequence[Group], at_least: int) -> dict[Group, int]:
    """Return how many tokens the prompts of each group begin with, of groups where these are so many or more."""
    members: dict[Group, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    lengths = {
        group: common_prefix([fitted.ids[place] for place in places])
        for group, places in members.items()
        if len(places) > 1
    }
    return {group: length for group, length in lengths.items() if length >= at_least}
