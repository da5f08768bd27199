"""The configuration of a composed model."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig


class ComposedConfig(PreTrainedConfig):
    """Describes a composed model: the configurations of its bases, the connections and the form of the bridges.

    Attributes:
        anchor: the anchor's configuration as a dict.
        augs: one configuration dict per aug.
        connections: per aug a list of [aug_layer, anchor_layer] pairs, 0-based, outputs of decoder layers.
        bridge: fields of `BridgeConfig`.
        aug_reads: "all" tokens (the paper's method), or the "prompt" only (its ablation "m_A as an encoder"): what is
            generated, or learned, is not fed to the augs.
        aug_seed: seed that untrained augs were drawn with (the ablation "random m_A"); None = augs with weights.
        bases: where the weights of the anchor and the augs come from and their fingerprints (see checkpoint.py).
        training: how the bridges were trained, as label and value, for the model card; empty = not known.
    """

    model_type = "calm"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        anchor: dict[str, Any] | None = None,
        augs: Sequence[dict[str, Any]] = (),
        connections: Sequence[Sequence[Sequence[int]]] = (),
        bridge: dict[str, Any] | None = None,
        aug_reads: str = "all",
        aug_seed: int | None = None,
        bases: Sequence[dict[str, Any]] = (),
        training: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.anchor = anchor or {}
        self.augs = list(augs)
        self.connections = [[list(pair) for pair in pairs] for pairs in connections]
        self.bridge = bridge or {}
        self.aug_reads = aug_reads
        self.aug_seed = aug_seed
        self.bases = list(bases)
        self.training = training or {}
        # What generate and other tools read from a causal LM's configuration is the anchor's.
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ):
            if name in self.anchor:
                kwargs.setdefault(name, self.anchor[name])
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, self.anchor.get(name))
        kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Do nothing: checkpoints name our classes anyway, and transformers would copy our source beside them."""

    def anchor_config(self) -> PreTrainedConfig:
        """Return the anchor's configuration as an object."""
        return _config_from_dict(self.anchor)

    def aug_configs(self) -> list[PreTrainedConfig]:
        """Return the configuration of each aug as an object."""
        return [_config_from_dict(aug) for aug in self.augs]


def _config_from_dict(values: dict[str, Any]) -> PreTrainedConfig:
    settings = dict(values)
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


AutoConfig.register(ComposedConfig.model_type, ComposedConfig)
