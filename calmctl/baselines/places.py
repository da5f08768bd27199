"""Where adapters go: the attention and feed-forward blocks of every decoder layer, by module name."""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.blocks import Block, attention_of, feed_forward_of
from calmctl.modeling.layers import decoder_layers

WHERE = ("attention", "feed_forward", "both")


def blocks_of(anchor: PreTrainedModel, where: str = "both") -> dict[str, Block]:
    """Return the blocks of a model in order, by the name of the module that returns the block's output.

    Raises:
        UserError: unknown `where`, or the blocks are not found.
    """
    if where not in WHERE:
        raise UserError(f"where={where!r} is not one of {', '.join(WHERE)}")
    names, found = names_of_modules(anchor), {}
    for layer in decoder_layers(anchor):
        if where != "feed_forward":
            attention = attention_of(layer)
            found[names[attention]] = Block(attention, attention)
        if where != "attention":
            block = feed_forward_of(layer)
            found[names[block.exit]] = block
    return found


def names_of_modules(model: PreTrainedModel) -> dict[object, str]:
    """Return the name of every module."""
    return {module: name for name, module in model.named_modules()}


def as_modules(adapters: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return adapters as one module, under names without dots, which torch forbids."""
    return nn.ModuleDict({name.replace(".", "_"): adapter for name, adapter in adapters.items()})
