"""The cache of a composed model: the anchor's, one per aug, and the keys and values of every bridge.

Rows of two caches can be joined, so that prompts begin while others are being continued.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedConfig, StaticCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from calmctl.errors import UserError
from calmctl.modeling.layers import text_config
from calmctl.modeling.tokenizers.aug_tokens import AugHistory

# Columns to add on the left and on the right of a cache; negative = to remove.
Padding = tuple[int, int]
# Free places for tokens to allocate at a time; when they are used up, the whole cache is copied.
ROOM = 64


class ComposedCache(Cache):
    """One cache for all models of a composition: decodes, reorders, crops and repeats their caches together.

    `anchor` and each of `augs` are ordinary transformers caches that the bases update themselves. `bridges[i]` holds,
    at layer index c, the keys and values (batch, heads, aug_seq, head_dim) of aug i's c-th connection. `folded` keeps
    the bridges' matrices, folded for decoding; caches of one generation may share it. `histories[i]` records what aug i
    has read if it has its own tokenizer; its caches then have one column per aug token.

    Args:
        max_cache_len: room for this many tokens, allocated once (static caches); None = the caches grow.
        is_shared: per aug, whether it shares the anchor's tokenizer; None = all of them do.

    Raises:
        UserError: a static cache with an aug that has its own tokenizer, whose number of tokens is unknown.
    """

    # If this were true, `generate` would compile the forward pass, which hooks break into pieces.
    is_compileable = False

    num_read: int

    def __init__(
        self,
        anchor_config: PreTrainedConfig,
        aug_configs: Sequence[PreTrainedConfig],
        max_cache_len: int | None = None,
        is_shared: Sequence[bool] | None = None,
    ) -> None:
        self._configs = [text_config(config) for config in (anchor_config, *aug_configs)]
        self.allocated = max_cache_len
        self._is_shared = list(is_shared) if is_shared is not None else [True] * len(aug_configs)
        if max_cache_len is not None and not all(self._is_shared):
            raise UserError(
                "a static cache has no room for augs with tokenizers of their own, which may read any number of tokens;"
                " use a dynamic one (leave out cache_implementation)"
            )
        self.reset()
        super().__init__(layers=[])

    @property
    def parts(self) -> list[Cache]:
        """Return every cache inside, the anchor's first."""
        return [self.anchor, *self.augs, *self.bridges]

    @property
    def layers(self) -> list:
        """Return the layers of all parts; transformers' operations on whole caches (reordering, ...) loop over them.

        The anchor's come first, so that an index means a layer of the anchor.
        """
        return [layer for part in self.parts for layer in part.layers]

    @layers.setter
    def layers(self, _: list) -> None:
        """Ignore the assignment in the base class's constructor: the layers belong to the parts."""

    def update(self, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Refuse: a base updates its own part, never the composed cache."""
        raise TypeError("a ComposedCache is updated through its parts; pass it to a composed model only")

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of cached anchor tokens."""
        return int(self.anchor.get_seq_length(layer_idx))

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest `-tokens_to_remove` tokens (a negative number, as in transformers; 0 removes none).

        Layers that hold fewer tokens than the anchor (of an aug that reads prompts only) are cropped to the new length;
        empty layers (of an aug, above its last tapped one) are skipped.

        Raises:
            UserError: the number is positive, a sliding window has dropped tokens that would be seen again, or the
                cache is static; no part has been changed.
        """
        if tokens_to_remove > 0:
            raise UserError(f"crop({tokens_to_remove}): the number of tokens to remove has to be negative")
        if self.allocated is not None:
            raise UserError("a static cache cannot be cropped; use one that grows")
        length = self.get_seq_length() + tokens_to_remove
        columns = [history.columns_at(length) if history is not None else length for history in self.histories]
        ends = zip(self.parts, (length, *columns, *columns), strict=True)
        # Layers without keys are above the last tapped one, or share another layer's keys.
        held: list[Any] = []
        removals: list[int] = []
        for part, end in ends:
            here: list[Any] = [layer for layer in part.layers if cast(Any, layer).keys is not None]
            held += here
            removals += [max(layer.get_seq_length() - end, 0) for layer in here]
        for layer, removed in zip(held, removals, strict=True):
            if removed and layer.keys.shape[-2] - removed < _keys_needed(layer, removed):
                raise UserError(
                    f"a cache of {layer.get_seq_length()} tokens cannot be cropped: a sliding window of "
                    f"{layer.sliding_window} has dropped the earlier ones; call activate_past_recording() on it first"
                )
        for layer, removed in zip(held, removals, strict=True):
            if removed or getattr(layer, "record_past", False):
                layer.crop(-removed)
        self.num_read = min(self.num_read, length)
        for history in self.histories:
            if history is not None:
                history.crop(length)

    # Operations of transformers on all layers, extended to the histories.

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows of the batch (beam search)."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        for history in self.histories:
            if history is not None:
                history.repeat(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch."""
        super().batch_select_indices(indices)
        self._select(indices)

    def join(self, other: "ComposedCache", shifts: tuple[int, int]) -> None:
        """Append the rows of another cache; see `join_caches`. Not for augs that read prompts only."""
        ends = tuple((shift, 0) for shift in shifts)
        join_layers(self.anchor.layers, other.anchor.layers, *ends)
        for index, history in enumerate(self.histories):
            # An aug with its own tokenizer has columns of its own, and empty ones come last.
            paddings = ends if history is None else history.join(cast(AugHistory, other.histories[index]), shifts)
            for held, more in ((self.augs, other.augs), (self.bridges, other.bridges)):
                join_layers(held[index].layers, more[index].layers, *paddings)

    def _select(self, indices: Tensor) -> None:
        for history in self.histories:
            if history is not None:
                history.select(indices.tolist())

    def reset(self) -> None:
        """Empty every part."""
        self.folded: dict[tuple[int, int], Tensor | None] = {}
        # Whether the rows had different prompt lengths; every further forward pass then needs them too.
        self.has_prompt_lengths = False
        # Number of anchor tokens read by augs that read prompts only.
        self.num_read = 0
        self.histories: list[AugHistory | None] = [None if is_shared else AugHistory() for is_shared in self._is_shared]
        self.anchor: Cache
        self.augs: Sequence[Cache]
        if self.allocated is None:
            # Caches of augs with their own tokenizer keep everything: replaced tokens stay in their columns, so a
            # sliding window over columns would be too short. The masks of these augs apply the window instead.
            self.anchor = growing(DynamicCache(config=self._configs[0]))
            augs = zip(self._configs[1:], self._is_shared, strict=True)
            self.augs = [growing(DynamicCache(config=config if shared else None)) for config, shared in augs]
            self.bridges: list[Cache] = [growing(DynamicCache()) for _ in self.augs]
            return
        self.anchor, *self.augs = (StaticCache(config, self.allocated) for config in self._configs)
        new_layer = partial(StaticLayer, max_cache_len=self.allocated)
        self.bridges = [Cache(layer_class_to_replicate=new_layer) for _ in self.augs]  # type: ignore[arg-type]


class GrowingLayer(DynamicLayer):
    """A cache layer with free places after its tokens; transformers' own copies all tokens for every new one.

    Keys and values are views of the beginning of larger tensors. Tensors that replace them (rows repeated, selected,
    reordered or joined) get free places of their own with the next token. Where gradients are needed, all are copied.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values (batch, heads, seq, head_dim), and return all of them."""
        if key_states.requires_grad:
            return super().update(key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _append(cast(Tensor, self.keys), key_states)
        self.values = _append(cast(Tensor, self.values), value_states)
        return self.keys, self.values


def _append(held: Tensor, new: Tensor) -> Tensor:
    """Return held and new tokens (batch, heads, seq, head_dim), in the free places behind `held` if they suffice."""
    before = held.shape[-2] if held.numel() else 0
    after = before + new.shape[-2]
    # A view of the beginning of a larger tensor has that tensor's strides.
    places = held.stride(-3) // held.shape[-1] if before else 0
    if after <= places:
        room = held.as_strided((*held.shape[:-2], places, held.shape[-1]), held.stride())
    else:
        room = new.new_empty(*new.shape[:-2], after + ROOM, new.shape[-1])
        if before:
            room[..., :before, :] = held
    room[..., before:after, :] = new
    return room[..., :after, :]


def growing(cache: Cache) -> Cache:
    """Let those layers of an empty cache that hold all tokens grow in place."""
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = GrowingLayer
    return cache


def join_caches(cache: Cache, other: Cache, shifts: tuple[int, int]) -> None:
    """Append the rows of another cache of the same model, which is used up.

    Args:
        cache: whose layers hold all tokens.
        shifts: for each of the two, the columns of padding to add on the left (negative: to remove), after which both
            have the same length.
    """
    if hasattr(cache, "join"):
        cache.join(other, shifts)
    else:
        join_layers(cache.layers, other.layers, *((shift, 0) for shift in shifts))


def join_layers(layers: Sequence[Any], others: Sequence[Any], padding: Padding, other_padding: Padding) -> None:
    """Append the rows of other layers, with both padded to the same length; layers without keys stay as they are."""
    for layer, other in zip(layers, others, strict=True):
        for name in ("keys", "values") if layer.keys is not None and layer.keys.numel() else ():
            pads = ((getattr(layer, name), padding), (getattr(other, name), other_padding))
            setattr(layer, name, torch.cat([F.pad(held, (0, 0, *columns)) for held, columns in pads]))


def _keys_needed(layer: DynamicLayer, removed: int) -> int:
    """Return how many keys of a layer the next token attends to after the newest `removed` ones are gone."""
    length = int(layer.get_seq_length()) - removed
    return min(length, layer.sliding_window - 1) if isinstance(layer, DynamicSlidingWindowLayer) else length
