"""The cache of a composed model: the anchor's, one per aug, and the keys and values of every bridge."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache

from calmctl.modeling.layers import text_config


class ComposedCache(Cache):
    """One object that decodes, reorders, crops and repeats all caches of a composed model together.

    `anchor` and each of `augs` are ordinary transformers caches that the bases update themselves. `bridges[i]` holds,
    at layer index c, the keys and values (batch, heads, aug_seq, head_dim) of aug i's c-th connection. `folded`
    keeps the bridges' matrices, folded for decoding, for as long as this cache is in use.
    """

    def __init__(self, anchor_config: PreTrainedConfig, aug_configs: Sequence[PreTrainedConfig]) -> None:
        self.anchor: Cache = DynamicCache(config=text_config(anchor_config))
        self.augs: list[Cache] = [DynamicCache(config=text_config(config)) for config in aug_configs]
        self.bridges: list[Cache] = [DynamicCache() for _ in aug_configs]
        self.folded: dict[tuple[int, int], Tensor | None] = {}
        super().__init__(layers=[])

    @property
    def parts(self) -> list[Cache]:
        """Return every cache inside, the anchor's first."""
        return [self.anchor, *self.augs, *self.bridges]

    @property
    def layers(self) -> list:
        """Return the layers of all parts; the anchor's come first, so that lengths asked by index are the anchor's."""
        return [layer for part in self.parts for layer in part.layers]

    @layers.setter
    def layers(self, _: list) -> None:
        """Ignore the assignment in the base class's constructor: the layers belong to the parts."""

    def update(self, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Refuse: a base updates its own part, never the composed cache."""
        raise TypeError("a ComposedCache is updated through its parts; pass it to a composed model only")

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of anchor tokens held."""
        return self.anchor.get_seq_length(layer_idx)

    def crop(self, tokens_to_remove: int) -> None:
        """Shorten every part alike."""
        for part in self.parts:
            part.crop(tokens_to_remove)

    def reset(self) -> None:
        """Empty every part."""
        self.folded.clear()
        for part in self.parts:
            part.reset()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the batch of every part (beam search)."""
        for part in self.parts:
            part.reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of every part."""
        for part in self.parts:
            part.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only some rows of every part."""
        for part in self.parts:
            part.batch_select_indices(indices)
