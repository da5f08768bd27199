"""Configurations of composed models and of all other models stored in parts."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, AutoConfig

from calmctl.modeling.calling import CACHE

ANCHOR_FACTS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "use_cache")
# Settings that change logits after the LM head; tools that bypass a model's forward pass apply them.
HEAD_FACTS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
# Model types that multiply by `logits_scaling`; all others, and so the tools, divide by it.
SCALED_UP = ("hyperclovax",)
# Names of the context length in configurations, the commonest first.
CONTEXTS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"),
    *("max_target_positions", "n_ctx", "seq_length"),
)


class PartsConfig(PreTrainedConfig):
    """Configuration of a model with frozen bases (an anchor, any number of augs or none) and trained parts.

    Attributes:
        anchor: the anchor's configuration as a dict.
        augs: one configuration dict per aug.
        bases: per base, the source of its weights and its fingerprint (see checkpoint.py).
        training: how the parts were trained, label -> value, for the model card; empty = unknown.
        use_cache: whether the model returns a cache by default, outside training; default: the anchor's setting.
    """

    keys_to_ignore_at_inference = [CACHE]
    aug_seed: int | None = None

    def __init__(
        self,
        anchor: dict[str, Any] | None = None,
        augs: Sequence[dict[str, Any]] = (),
        bases: Sequence[dict[str, Any]] = (),
        training: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.anchor = anchor or {}
        self.augs = list(augs)
        self.bases = list(bases)
        self.training = training or {}
        facts = self._facts()
        self.use_cache = facts.pop("use_cache", True) if use_cache is None else use_cache
        for name, value in facts.items():
            kwargs.setdefault(name, value)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, self.anchor.get(name))
        kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return a configuration; `anchor` and `augs` among the arguments are bases for the model, no settings."""
        bases = {name: kwargs.pop(name) for name in ("anchor", "augs") if name in kwargs}
        found = super().from_dict(config_dict, **kwargs)
        return (found[0], {**found[1], **bases}) if isinstance(found, tuple) else found

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Do nothing: checkpoints already name our classes, and transformers would copy our source beside them."""

    def _facts(self) -> dict[str, Any]:
        """Return settings that `generate` and other tools read: the anchor's, and the shortest context of all bases."""
        if not self.anchor:
            return {}
        text, *others = (base.get_text_config(decoder=True) for base in (self.anchor_config(), *self.aug_configs()))
        # Augs with their own tokenizer count other tokens.
        cuts = getattr(self, "segmentations", None) or [None] * len(others)
        others = [each for each, cut in zip(others, cuts, strict=True) if cut is None]
        facts = {name: getattr(text, name) for name in (*ANCHOR_FACTS, *HEAD_FACTS) if hasattr(text, name)}
        if text.model_type in SCALED_UP and "logits_scaling" in facts:
            facts["logit_scale"] = facts.pop("logits_scaling")
        if contexts := [length for each in (text, *others) if (length := declared_context(each))]:
            facts[CONTEXTS[0]] = min(contexts)
        return facts

    def anchor_config(self) -> PreTrainedConfig:
        """Return the anchor's configuration as an object."""
        return _config_from_dict(self.anchor)

    def aug_configs(self) -> list[PreTrainedConfig]:
        """Return the configuration of each aug as an object."""
        return [_config_from_dict(aug) for aug in self.augs]


class ComposedConfig(PartsConfig):
    """Configuration of a composed model: its bases, connections and form of the bridges.

    Attributes:
        anchor: the anchor's configuration as a dict.
        augs: one configuration dict per aug.
        connections: per aug a list of [aug_layer, anchor_layer] pairs, 0-based, outputs of decoder layers.
        bridge: fields of `BridgeConfig`.
        aug_reads: "all" tokens (the paper's method), or the "prompt" only (its ablation "m_A as an encoder"): augs do
            not read the completion, neither in training nor in generation.
        segmentations: per aug with its own tokenizer, how it reads (`OwnTokenizer.settings`); None = it shares the
            anchor's tokenizer.
        aug_seed: seed of the random weights of untrained augs (the ablation "random m_A"); None = augs with weights.
        bases: per base, the source of its weights and its fingerprint (see checkpoint.py).
        use_cache: whether the model returns a cache by default, outside training; default: the anchor's setting.
        training: how the bridges were trained, label -> value, for the model card; empty = unknown.
    """

    model_type = "calm"

    def __init__(
        self,
        anchor: dict[str, Any] | None = None,
        augs: Sequence[dict[str, Any]] = (),
        connections: Sequence[Sequence[Sequence[int]]] = (),
        bridge: dict[str, Any] | None = None,
        aug_reads: str = "all",
        segmentations: Sequence[dict[str, Any] | None] | None = None,
        aug_seed: int | None = None,
        bases: Sequence[dict[str, Any]] = (),
        training: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.connections = [[list(pair) for pair in pairs] for pairs in connections]
        self.bridge = bridge or {}
        self.aug_reads = aug_reads
        self.segmentations = list(segmentations) if segmentations is not None else [None] * len(augs)
        self.aug_seed = aug_seed
        super().__init__(anchor, augs, bases, training, use_cache, **kwargs)


def declared_context(config: PreTrainedConfig) -> int | None:
    """Return a model's context length in tokens; None = its configuration does not say."""
    text = config.get_text_config(decoder=True)
    lengths = (getattr(text, name, None) for name in CONTEXTS)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def _config_from_dict(values: dict[str, Any]) -> PreTrainedConfig:
    settings = dict(values)
    model_type = settings.pop("model_type")
    if model_type not in CONFIG_MAPPING and "auto_map" in settings:
        # Only the base's own code knows this type; until it runs, the fields of every configuration suffice.
        return PreTrainedConfig(**settings)
    return AutoConfig.for_model(model_type, **settings)
