"""Rows of tokens that branch: what a decoder makes of each token, told what it may attend to, and along its path alone.

Paths are longer than the windows and chunks of the tests' models.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from calmctl.modeling import layers
from calmctl.modeling.own_masks import own_mask
from tests.models import VOCABULARY

Row = tuple[int | None, ...]
# Which token of the row each one follows; -1 = none, it begins a text; None = padding.
ROWS: tuple[Row, ...] = (
    (-1, 0, 1, 2, 3, 4, 3, 6, 7, 8, 9, 5, 11, 12, 13, 10),
    (-1, 0, 1, 1, 3, 4, 5, 6, 7, 2, 9, 10, 8, 12, None, None),
)
LENGTH = len(ROWS[0])
AT_ONCE, IN_STEPS = (LENGTH,), (5, 4, 1, 6)


def path(row: Row, token: int) -> list[int]:
    """Return the tokens of a row that a text up to this one consists of."""
    before = row[token]
    return [token] if before is None or before < 0 else [*path(row, before), token]


def branching() -> tuple[Tensor, Tensor, Tensor]:
    """Return ids (2, LENGTH), what each token may attend to (2, LENGTH, LENGTH), and positions (2, LENGTH)."""
    ids = torch.randint(2, VOCABULARY, (len(ROWS), LENGTH), generator=torch.Generator().manual_seed(5))
    allowed = torch.zeros(len(ROWS), LENGTH, LENGTH, dtype=torch.bool)
    for place, row in enumerate(ROWS):
        for token in range(LENGTH):
            allowed[place, token, path(row, token)] = True
    return ids, allowed, allowed.sum(-1) - 1


@torch.no_grad()
def states_in_branches(model: PreTrainedModel, steps: tuple[int, ...], allowed: Tensor | None = None) -> Tensor:
    """Return the states (2, LENGTH, dim) of the rows, read so many tokens at a time, with masks of their own."""
    decoder, cache = layers.decoder(model), DynamicCache() if len(steps) > 1 else None
    ids, of_rows, positions = branching()
    allowed = of_rows if allowed is None else allowed
    found, start = [], 0
    for end in torch.tensor(steps).cumsum(0).tolist():
        new, seen = slice(start, end), slice(end)
        mask = own_mask(decoder, allowed[:, new, seen], positions[:, new], positions[:, seen])
        arguments = layers.arguments_of(decoder, ids[:, new], None, positions[:, new], cache)
        found.append(decoder(**arguments | {"attention_mask": mask}).last_hidden_state)
        start = end
    return torch.cat(found, dim=1)


@torch.no_grad()
def states_alone(model: PreTrainedModel) -> Iterator[tuple[int, int, Tensor]]:
    """Yield row, token and states (dim,) of every token that is no padding, read along its path with nothing else."""
    decoder, ids = layers.decoder(model), branching()[0]
    for place, row in enumerate(ROWS):
        ends = [token for token in range(LENGTH) if row[token] is not None and token not in row]
        for along in (path(row, end) for end in ends):
            arguments = layers.arguments_of(decoder, ids[place, along][None], None, torch.arange(len(along))[None])
            states = decoder(**arguments).last_hidden_state[0]
            yield from zip([place] * len(along), along, states, strict=True)


def deviation(model: PreTrainedModel, steps: tuple[int, ...], allowed: Tensor | None = None) -> float:
    """Return how far states in branches lie at most from those alone, as a share of the largest of these."""
    found, alone = states_in_branches(model, steps, allowed).float(), list(states_alone(model))
    differences = torch.stack([found[row, token] - states.float() for row, token, states in alone])
    largest = torch.stack([states.float() for _, _, states in alone]).abs().max()
    return float((differences.abs().max() / largest).nan_to_num(nan=torch.inf))
