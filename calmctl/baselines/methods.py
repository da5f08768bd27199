"""The table of adapter methods, each of which trains a small number of parameters in a frozen anchor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from calmctl.baselines import bottleneck, lora, prefix, prompt
from calmctl.baselines.options import AROUND, ATTENTION, BEFORE, BOTH, FEED_FORWARD, AdapterOptions, Where
from calmctl.errors import UserError


@dataclass(frozen=True)
class Adapter:
    """An adapter method.

    Attributes:
        title: its name in model cards and plans.
        size: the unit of an adapter's size (rank, virtual tokens, ...).
        where: the blocks that it can adapt, its default first; empty = it adapts none.
        takes: names of the other options that it has.
        units: (anchor, options) -> {name of a module: parameters per unit of size}.
        attach: (anchor, sizes, options) -> the new modules, except those that the anchor itself now holds.
        merged: anchor -> a plain model that computes the same; None = cannot be merged.
        is_neutral: an untrained adapter with `init=neutral` leaves the anchor's logits as they are.
        is_prompt: its one module gives embeddings of virtual tokens, which come before every text.
        fixed: anchor -> parameters that do not depend on the size.
        own_name: name of a weight -> the anchor's original name, None for an adapter's; if the method renames weights.
    """

    title: str
    size: str
    where: tuple[Where, ...]
    takes: tuple[str, ...]
    units: Callable[[PreTrainedModel, AdapterOptions], dict[str, int]]
    attach: Callable[[PreTrainedModel, Mapping[str, int], AdapterOptions], nn.ModuleDict]
    merged: Callable[[PreTrainedModel], PreTrainedModel] | None = None
    is_neutral: bool = True
    is_prompt: bool = False
    fixed: Callable[[PreTrainedModel], int] | None = None
    own_name: Callable[[str], str | None] | None = None

    def parameters(self, anchor: PreTrainedModel, sizes: Mapping[str, int], options: AdapterOptions) -> int:
        """Return the number of trainable parameters of adapters with these sizes."""
        units = self.units(anchor, options)
        return sum(units[name] * size for name, size in sizes.items()) + self.fixed_parameters(anchor)

    def fixed_parameters(self, anchor: PreTrainedModel) -> int:
        """Return the number of trainable parameters that do not depend on the size."""
        return self.fixed(anchor) if self.fixed is not None else 0


_BOTTLENECK = ("targets", "activation", "init", "scaling", "dropout")
# The default blocks are those on which LLM-Adapters found each method to work best.
ADAPTERS: dict[str, Adapter] = {
    "lora": Adapter(
        "LoRA", "rank", (BOTH, ATTENTION, FEED_FORWARD), ("targets", "scaling", "dropout"), lora.units, lora.attach,
        merged=lora.merged, own_name=lora.own_name,
    ),
    "prefix": Adapter(
        "Prefix tuning", "virtual tokens", (ATTENTION,), ("init",), prefix.units, prefix.attach, is_neutral=False,
    ),
    "prompt": Adapter(
        "Prompt tuning", "virtual tokens", (), ("init",), prompt.tuning_units, prompt.attach_prompt,
        is_neutral=False, is_prompt=True,
    ),
    "p_tuning": Adapter(
        "P-tuning", "virtual tokens", (), (), prompt.tuning_units, prompt.attach_encoded,
        is_neutral=False, is_prompt=True, fixed=prompt.encoder_parameters,
    ),
    "series": Adapter(
        "Series adapters", "bottleneck width", (FEED_FORWARD, ATTENTION, BOTH, BEFORE, AROUND), _BOTTLENECK,
        bottleneck.series_units, bottleneck.attach_series,
    ),
    "parallel": Adapter(
        "Parallel adapters", "bottleneck width", (FEED_FORWARD, ATTENTION, BOTH), _BOTTLENECK,
        bottleneck.parallel_units, bottleneck.attach_parallel,
    ),
}  # fmt: skip


def options_for(method: str, options: AdapterOptions) -> AdapterOptions:
    """Return the options of a method, with the method's default blocks if neither blocks nor layers are chosen.

    Raises:
        UserError: an option that the method does not have.
    """
    adapter = ADAPTERS[method]
    for name, value in options.changed().items():
        if name == "where" and value not in adapter.where:
            can = f"give {', '.join(adapter.where)}, or leave it out" if adapter.where else "leave it out"
            raise UserError(f"where={value}: {adapter.title} cannot go there; {can}")
        if name != "where" and name not in adapter.takes:
            raise UserError(f"{name}={value}: {adapter.title} has no such option; leave it out")
    if options.where or options.targets or not adapter.where:
        return options
    return replace(options, where=adapter.where[0])


def stored_options(method: str, values: Mapping[str, Any]) -> AdapterOptions:
    """Return the options in an adapted model's configuration.

    Those of earlier versions have none; the names of the adapted modules then say where the adapters sit, so that all
    blocks may be looked through.

    Raises:
        UserError: an option is not known.
    """
    options = AdapterOptions.from_dict(values)
    if not values and BOTH in ADAPTERS[method].where:
        options = replace(options, where=BOTH)
    return options_for(method, options)
