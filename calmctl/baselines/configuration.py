"""The configuration of an adapted model: its anchor, its method, and the size of each adapter."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from calmctl.modeling.configuration import PartsConfig


class AdaptedConfig(PartsConfig):
    """Describes a frozen anchor with trained adapters in it.

    Attributes:
        method: a key of `calmctl.baselines.methods.ADAPTERS`.
        sizes: name of the adapted module -> rank, bottleneck width, or number of virtual tokens.
        options: those of `AdapterOptions` that differ from its defaults.
        virtual_tokens: number of tokens that are put before every text, and take places in the anchor's context.
    """

    model_type = "calm_adapted"

    def __init__(
        self,
        anchor: dict[str, Any] | None = None,
        method: str = "",
        sizes: Mapping[str, int] | None = None,
        options: Mapping[str, Any] | None = None,
        virtual_tokens: int = 0,
        **kwargs: Any,
    ) -> None:
        self.method = method
        self.sizes = dict(sizes or {})
        self.options = dict(options or {})
        self.virtual_tokens = virtual_tokens
        super().__init__(anchor, **kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the anchor's, which decides on caches, context length and the like."""
        return self.anchor_config().get_text_config(decoder=decoder, encoder=encoder) if self.anchor else self
