"""The table of methods: how each of them makes a small part of an anchor trainable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from calmctl.baselines import bottleneck, lora, prefix


@dataclass(frozen=True)
class Adapter:
    """A method that trains something small in a frozen anchor.

    Attributes:
        title: what cards and plans call it.
        size: what its size is, in words.
        where: the blocks that it acts on when not told.
        units: (anchor, where) -> name of a module -> parameters that one more of its size adds there.
        attach: (anchor, sizes) -> the new modules, but for what the anchor itself holds now.
        merged: anchor -> a plain model that computes the same; None = the method has none.
        own_name: the anchor's own name of a weight, None = not the anchor's; where the method renames.
    """

    title: str
    size: str
    where: str
    units: Callable[[PreTrainedModel, str], dict[str, int]]
    attach: Callable[[PreTrainedModel, Mapping[str, int]], nn.ModuleDict]
    merged: Callable[[PreTrainedModel], PreTrainedModel] | None = None
    own_name: Callable[[str], str | None] | None = None


# Where each acts by default is where LLM-Adapters found it to work best.
ADAPTERS: dict[str, Adapter] = {
    "lora": Adapter("LoRA", "rank", "both", lora.units, lora.attach, merged=lora.merged, own_name=lora.own_name),
    "prefix": Adapter("Prefix tuning", "virtual tokens", "attention", prefix.units, prefix.attach),
    "series": Adapter("Series adapters", "bottleneck width", "feed_forward", bottleneck.units, bottleneck.attach_after),
    "parallel": Adapter(
        "Parallel adapters", "bottleneck width", "feed_forward", bottleneck.units, bottleneck.attach_beside
    ),
}
# Training the whole anchor: no adapter, and no number of parameters to match.
FULL = "full"
METHODS = (*ADAPTERS, FULL)
