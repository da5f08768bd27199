"""Context lengths in tokens: of models, and of augs with their own tokenizer (which count their own tokens)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from calmctl.modeling import configuration
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.tokenizers.segmentation import START, Segmenter

# Tables of learned positions may have a few rows that are no positions.
_SPARE_ROWS = 8
# NFC lengthens a text, in bytes of UTF-8, by this factor at most.
_MOST_COMPOSED = 3


@dataclass(frozen=True)
class AugContext:
    """The context of an aug with its own tokenizer.

    Attributes:
        index: of the aug.
        segmenter: maps the anchor's tokens to the aug's.
        length: context length in aug tokens.
    """

    index: int
    segmenter: Segmenter
    length: int

    def lengths(self, token_ids: Sequence[int]) -> Iterator[int]:
        """Yield the length of the aug's text, in aug tokens, after each anchor token."""
        state, settled = START, 0
        for token_id in token_ids:
            move = self.segmenter.move(state, token_id)
            yield settled + move.kept + len(move.new)
            state, settled = move.state, settled + move.settled

    def longest(self, token_ids: Sequence[int]) -> int:
        """Return the number of positions that the aug needs to read these anchor tokens."""
        return max(self.lengths(token_ids), default=0)

    def num_fitting(self, token_ids: Sequence[int]) -> int:
        """Return how many of the anchor tokens can be read before the aug's context is exceeded."""
        fitting = (place for place, length in enumerate(self.lengths(token_ids)) if length > self.length)
        return next(fitting, len(token_ids))

    def may_exceed(self, rows: Sequence[Sequence[int] | NDArray[np.int32]], room: int = 0) -> NDArray[np.bool_]:
        """Tell which rows of anchor tokens may exceed the aug's context, by an upper bound from their bytes.

        Args:
            room: number of aug tokens to keep free.
        """
        known = self.length - room - len(self.segmenter.opening) - 1  # and a space before the text
        most = _most_tokens(self.segmenter)
        return np.asarray([most[np.minimum(row, len(most) - 1)].sum() > known for row in rows], bool)


@lru_cache(maxsize=8)
def _most_tokens(segmenter: Segmenter) -> NDArray[np.int64]:
    """Return the most aug tokens that each anchor token can become, by id; the last entry is for larger ids."""
    known = [
        max(_MOST_COMPOSED * len(segmenter.anchor[token_id] or b""), len(segmenter.markers.get(token_id, ())))
        for token_id in range(len(segmenter.anchor))
    ]
    return np.asarray([*known, 0])


def aug_contexts(model: PreTrainedModel) -> list[AugContext]:
    """Return the context of each aug with its own tokenizer; augs of unknown context length are left out."""
    if not isinstance(model, ComposedModelForCausalLM):
        return []
    return contexts_of(model.model.segmenters, [context_length(cast(PreTrainedModel, aug)) for aug in model.augs])


def contexts_of(segmenters: Sequence[Segmenter | None], lengths: Sequence[int | None]) -> list[AugContext]:
    """Return the contexts of those augs that have a segmenter and a known context length."""
    pairs = enumerate(zip(segmenters, lengths, strict=True))
    return [AugContext(index, segmenter, length) for index, (segmenter, length) in pairs if segmenter and length]


def context_length(model: PreTrainedModel) -> int | None:
    """Return a model's context length in tokens, of several bases the shortest; None = unknown.

    Augs with their own tokenizer count other tokens: see `aug_contexts`.
    """
    if isinstance(model, PartsModel):
        own = getattr(model.config, "segmentations", None) or [None] * len(model.augs)
        shared = [base for base, cut in zip(model.bases(), [None, *own], strict=True) if cut is None]
        known = [length for base in shared if (length := context_length(base)) is not None]
        virtual = getattr(model.config, "virtual_tokens", 0)
        return min(known) - virtual if known else None
    said = configuration.declared_context(model.config)
    if said is None:
        return None
    tables = (module for name, module in model.named_modules() if _is_position_table(name, module, said))
    return min([said, *map(_num_positions, tables)])


def _is_position_table(name: str, module: nn.Module, said: int) -> bool:
    own_name = name.rpartition(".")[2]
    is_named_so = "position" in own_name or own_name == "wpe"
    return is_named_so and isinstance(module, nn.Embedding) and 0 <= module.num_embeddings - said <= _SPARE_ROWS


def _num_positions(table: nn.Module) -> int:
    """Return how many rows of a table are positions; RoBERTa's start after the padding index."""
    assert isinstance(table, nn.Embedding)
    behind_padding = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - int(getattr(table, "offset", behind_padding))
