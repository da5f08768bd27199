"""Several datasets as one: examples joined, and taken in given shares."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.context import AugContext
from calmctl.training.examples import Examples, load_examples
from calmctl.training.settings import TrainSettings

MIXING_STREAM = 0x3185
# A dataset that would be repeated more often than this within one pass has no shares that make sense.
MOST_REPEATS = 100


def load_datasets(
    datasets: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainSettings,
    context: int | None = None,
    augs: Sequence[AugContext] = (),
    columns: Mapping[str, str] | None = None,
) -> Examples:
    """Read and tokenise datasets one after the other; see `load_examples` for arguments and errors.

    Rows of several datasets are counted on from one to the next.
    """
    return joined([load_examples(each, tokenizer, settings, context, augs, columns) for each in datasets])


def joined(parts: Sequence[Examples]) -> Examples:
    """Return the examples of several datasets, which `dataset_index` tells apart; of one, as they are."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(each.ids.size for each in parts)])
    firsts = np.cumsum([0, *(each.counts["rows"] for each in parts)])
    sizes = [each.learned_bytes for each in parts]
    return Examples(
        np.concatenate([each.ids for each in parts]),
        np.concatenate([[0], *(each.starts[1:] + offset for each, offset in zip(parts, offsets, strict=False))]),
        np.concatenate([each.completion_starts for each in parts]),
        {name: _column(parts, name) for name in dict.fromkeys(name for each in parts for name in each.meta)},
        np.concatenate([each.rows + first for each, first in zip(parts, firsts, strict=False)]),
        {name: sum(each.counts[name] for each in parts) for name in parts[0].counts},
        learned_bytes=None if any(each is None for each in sizes) else np.concatenate(sizes),  # type: ignore[arg-type]
        dataset_index=np.repeat(np.arange(len(parts)), [len(each) for each in parts]),
    )


def in_shares(examples: Examples, datasets: Sequence[str], weights: Sequence[float], seed: int) -> Examples:
    """Return examples in which each dataset has its share (`weights`, of any sum).

    Every example stays; those of datasets that are too small for their share are repeated, each as often as the others
    but for one, drawn by the seed.

    Raises:
        UserError: a dataset has no examples, or would be repeated more than MOST_REPEATS times.
    """
    index = examples.dataset_index
    if index is None:
        return examples
    sizes = np.bincount(index, minlength=len(weights))
    if not sizes.all():
        raise UserError(
            f"data_weights: no examples of {datasets[int(np.argmin(sizes))]} are left to train on; give more"
        )
    wanted = np.asarray(weights) * (sizes / weights).max()
    if (wanted / sizes).max() > MOST_REPEATS:
        worst = int((wanted / sizes).argmax())
        raise UserError(
            f"data_weights: {datasets[worst]} would be repeated {wanted[worst] / sizes[worst]:,.0f} times for one pass "
            f"over the others ({MOST_REPEATS} at most); give it a smaller weight, or more examples"
        )
    generator = np.random.default_rng([seed, MIXING_STREAM])
    chosen = [
        _repeated(np.flatnonzero(index == number), round(count), generator) for number, count in enumerate(wanted)
    ]
    return examples.subset(np.concatenate(chosen))


def _repeated(places: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    whole, rest = divmod(count, len(places))
    return np.sort(np.concatenate([np.tile(places, whole), generator.permutation(places)[:rest]]))


def _column(parts: Sequence[Examples], name: str) -> NDArray[Any]:
    """Return a field of the rows' `meta`; None in datasets that lack it."""
    return np.concatenate([each.meta.get(name, np.full(len(each), None, object)) for each in parts])
