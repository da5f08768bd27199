"""How the adapters of a method are built, besides their size: where they sit, what they compute, how they start."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from calmctl.errors import UserError
from calmctl.schema import check_choices

Where = Literal["", "attention", "feed_forward", "both", "before_feed_forward", "around_feed_forward"]
ATTENTION: Final = "attention"
FEED_FORWARD: Final = "feed_forward"
BOTH: Final = "both"
BEFORE: Final = "before_feed_forward"
AROUND: Final = "around_feed_forward"
Activation = Literal["tanh", "relu", "gelu", "silu"]
# Entries of `targets` that stand for the matrices of LLM-Adapters' own runs, of its AdapterH and of its AdapterP.
PUBLISHED, ADAPTER_H, ADAPTER_P = "llm_adapters", "adapter_h", "adapter_p"


# Training the whole anchor: no adapters, and no size to choose.
FULL = "full"
METHODS = ("lora", "prefix", "prompt", "p_tuning", "series", "parallel", FULL)


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Choices within an adapter method.

    Attributes:
        where: blocks that get adapters: attention (series: after it), feed_forward (series: after it), both, and for
            series before_feed_forward and around_feed_forward; empty = the method's default.
        targets: linear layers that get an adapter each, instead of `where`: names, or ends of names, of modules in the
            decoder layers; `llm_adapters` alone = those of LLM-Adapters' runs for the anchor's family, `adapter_h`
            or `adapter_p` alone = those of its AdapterH or AdapterP.
        activation: the function between the two matrices of a bottleneck.
        init: `neutral` = the untrained model computes what its anchor does (with a prefix nearly, with virtual tokens
            in the text not); `published` = weights start as in LLM-Adapters' code and in peft, which changes the model.
        scaling: factor on what an adapter adds (LoRA: alpha / rank); 0 = the method's default.
        dropout: on what an adapter reads, during training (0 to 1).
    """

    where: Where = ""
    targets: tuple[str, ...] = ()
    activation: Activation = "tanh"
    init: Literal["neutral", "published"] = "neutral"
    scaling: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for settings out of range."""
        check_choices(self)
        if self.where and self.targets:
            raise ValueError(f"where={self.where} and targets={list(self.targets)}: give one of them")
        if len(set(self.targets)) < len(self.targets) or "" in self.targets:
            raise ValueError(f"targets={list(self.targets)}: each has to be a name, given once")
        if not 0 <= self.scaling < float("inf"):
            raise ValueError(f"scaling={self.scaling} must be a positive number (0 = the method's default)")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as plain values."""
        options = fields(AdapterOptions)
        found = {each.name: getattr(self, each.name) for each in options}
        changed = {each.name: found[each.name] for each in options if found[each.name] != each.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "AdapterOptions":
        """Return the options with those in `values` changed; raises UserError for an unknown one."""
        if unknown := values.keys() - {each.name for each in fields(AdapterOptions)}:
            raise UserError(
                f"adapter option {min(unknown)!r} is not known; was it written by a later version of calmctl?"
            )
        return AdapterOptions(**{**values, "targets": tuple(values.get("targets", ()))})
