"""The cache of a composed model: the anchor's, one per aug, and the keys and values of every bridge."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig, StaticCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from calmctl.errors import UserError
from calmctl.modeling.layers import text_config


class ComposedCache(Cache):
    """One object that decodes, reorders, crops and repeats all caches of a composed model together.

    `anchor` and each of `augs` are ordinary transformers caches that the bases update themselves. `bridges[i]` holds,
    at layer index c, the keys and values (batch, heads, aug_seq, head_dim) of aug i's c-th connection. `folded`
    keeps the bridges' matrices, folded for decoding, for as long as this cache is in use.

    Args:
        max_cache_len: room for this many tokens, allocated once (static caches); None = the caches grow.
    """

    # Transformers compiles the forward pass of its own accord around a cache that says it can be; ours has hooks.
    is_compileable = False

    def __init__(
        self,
        anchor_config: PreTrainedConfig,
        aug_configs: Sequence[PreTrainedConfig],
        max_cache_len: int | None = None,
    ) -> None:
        self._configs = [text_config(config) for config in (anchor_config, *aug_configs)]
        self.allocated = max_cache_len
        self.reset()
        super().__init__(layers=[])

    @property
    def parts(self) -> list[Cache]:
        """Return every cache inside, the anchor's first."""
        return [self.anchor, *self.augs, *self.bridges]

    @property
    def layers(self) -> list:
        """Return the layers of all parts, on which transformers does what it does to whole caches (reorder, ...).

        The anchor's come first, so that what is asked by index is the anchor's.
        """
        return [layer for part in self.parts for layer in part.layers]

    @layers.setter
    def layers(self, _: list) -> None:
        """Ignore the assignment in the base class's constructor: the layers belong to the parts."""

    def update(self, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Refuse: a base updates its own part, never the composed cache."""
        raise TypeError("a ComposedCache is updated through its parts; pass it to a composed model only")

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of anchor tokens held."""
        return int(self.anchor.get_seq_length(layer_idx))

    @property
    def num_read(self) -> int:
        """Return the number of tokens that the augs have read; fewer than the anchor's when they read prompts only."""
        return int(self.bridges[0].get_seq_length())

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens (a negative number of them, as in transformers; 0 removes none).

        Layers that hold fewer tokens than the anchor (an aug that reads prompts only) lose what exceeds the new
        length; those that hold none (of an aug, beyond the last tapped one) are left alone.

        Raises:
            UserError: the number is positive, a sliding window has dropped tokens that would be seen again, or the
                cache is static; no part has been changed.
        """
        if tokens_to_remove > 0:
            raise UserError(f"crop({tokens_to_remove}): the number of tokens to remove has to be negative")
        if self.allocated is not None:
            raise UserError("a static cache cannot be cropped; use one that grows")
        length = self.get_seq_length() + tokens_to_remove
        # Without keys: layers beyond the last one that is run, and those that share another one's keys.
        held = [layer for layer in self.layers if layer.keys is not None]
        removals = [max(layer.get_seq_length() - length, 0) for layer in held]
        for layer, removed in zip(held, removals, strict=True):
            if removed and layer.keys.shape[-2] - removed < _keys_needed(layer, removed):
                raise UserError(
                    f"a cache of {layer.get_seq_length()} tokens cannot be cropped: a sliding window of "
                    f"{layer.sliding_window} has dropped the earlier ones; call activate_past_recording() on it first"
                )
        for layer, removed in zip(held, removals, strict=True):
            if removed or getattr(layer, "record_past", False):
                layer.crop(-removed)

    def reset(self) -> None:
        """Empty every part."""
        self.folded: dict[tuple[int, int], Tensor | None] = {}
        # Whether prompts of several lengths were told apart, which then has to go on.
        self.has_prompt_lengths = False
        self.anchor: Cache
        self.augs: Sequence[Cache]
        if self.allocated is None:
            self.anchor, *self.augs = (DynamicCache(config=config) for config in self._configs)
            self.bridges: list[Cache] = [DynamicCache() for _ in self.augs]
            return
        self.anchor, *self.augs = (StaticCache(config, self.allocated) for config in self._configs)
        new_layer = partial(StaticLayer, max_cache_len=self.allocated)
        self.bridges = [Cache(layer_class_to_replicate=new_layer) for _ in self.augs]  # type: ignore[arg-type]


def _keys_needed(layer: DynamicLayer, removed: int) -> int:
    """Return how many keys of a layer the next token will see, once so many of the newest are removed."""
    length = int(layer.get_seq_length()) - removed
    return min(length, layer.sliding_window - 1) if isinstance(layer, DynamicSlidingWindowLayer) else length
