"""The table of adapter methods, each of which trains a small number of parameters in a frozen anchor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from calmctl.baselines import bottleneck, lora, prefix


@dataclass(frozen=True)
class Adapter:
    """An adapter method.

    Attributes:
        title: its name in model cards and plans.
        size: the unit of an adapter's size (rank, virtual tokens, ...).
        where: the blocks that it adapts by default.
        units: (anchor, where) -> {name of a module: parameters per unit of size}.
        attach: (anchor, sizes) -> the new modules, except those that the anchor itself now holds.
        merged: anchor -> a plain model that computes the same; None = cannot be merged.
        is_neutral: an untrained adapter leaves the anchor's logits as they are.
        own_name: name of a weight -> the anchor's original name, None for an adapter's; if the method renames weights.
    """

    title: str
    size: str
    where: str
    units: Callable[[PreTrainedModel, str], dict[str, int]]
    attach: Callable[[PreTrainedModel, Mapping[str, int]], nn.ModuleDict]
    merged: Callable[[PreTrainedModel], PreTrainedModel] | None = None
    is_neutral: bool = True
    own_name: Callable[[str], str | None] | None = None


# The default blocks are those on which LLM-Adapters found each method to work best.
ADAPTERS: dict[str, Adapter] = {
    "lora": Adapter("LoRA", "rank", "both", lora.units, lora.attach, merged=lora.merged, own_name=lora.own_name),
    "prefix": Adapter("Prefix tuning", "virtual tokens", "attention", prefix.units, prefix.attach, is_neutral=False),
    "series": Adapter("Series adapters", "bottleneck width", "feed_forward", bottleneck.units, bottleneck.attach_after),
    "parallel": Adapter(
        "Parallel adapters", "bottleneck width", "feed_forward", bottleneck.units, bottleneck.attach_beside
    ),
}
# Training the whole anchor: no adapters, and no size to choose.
FULL = "full"
METHODS = (*ADAPTERS, FULL)
