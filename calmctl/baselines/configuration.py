"""The configuration of an adapted model: its anchor, the method, and how large each of its adapters is."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from calmctl.modeling.configuration import PartsConfig


class AdaptedConfig(PartsConfig):
    """Describes a frozen anchor with trained adapters in it.

    Attributes:
        method: a key of `calmctl.baselines.methods.METHODS`.
        sizes: name of the module that is adapted -> rank, width of the bottleneck, or number of virtual tokens there.
    """

    model_type = "calm_adapted"

    def __init__(
        self,
        anchor: dict[str, Any] | None = None,
        method: str = "",
        sizes: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.method = method
        self.sizes = dict(sizes or {})
        super().__init__(anchor, **kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the anchor's: caches, contexts and the like of an adapted model are its anchor's."""
        return self.anchor_config().get_text_config(decoder=decoder, encoder=encoder) if self.anchor else self
