"""Frozen means frozen: what is trained is in the optimizer, what is not stays as it was, bit for bit."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from calmctl.errors import CalmctlError
from calmctl.modeling.stored.parts import PartsModel


class FrozenBases:
    """The bases of a model that is stored in parts as they were before training.

    Attributes:
        fingerprints: of the anchor and the augs.
    """

    def __init__(self, model: PartsModel) -> None:
        self.model = model
        self.fingerprints = model.fingerprints()

    def check(self) -> None:
        """Raise CalmctlError if a base is no longer what it was."""
        self._compare(
            self.model.fingerprints(), "changed during the training, although it is frozen; nothing was saved of it"
        )

    def check_same_as(self, recorded: list[dict[str, Any]]) -> None:
        """Raise CalmctlError if these are not the bases that a checkpoint of the same run was trained with."""
        self._compare(recorded, "is not the one this run was started with; restore it, or choose another --out")

    def _compare(self, others: list[dict[str, Any]], complaint: str) -> None:
        for index, (known, other) in enumerate(zip(self.fingerprints, others, strict=True)):
            if known["weights_sha256"] != other["weights_sha256"]:
                role = f"aug {index - 1}" if index else "anchor"
                raise CalmctlError(f"the {role} {complaint}")


def check_same_reading(model: PartsModel, stored: Mapping[str, Any]) -> None:
    """Check that augs with tokenizers of their own read as they did when a checkpoint of the same run was written.

    Args:
        stored: the configuration in the checkpoint.

    Raises:
        CalmctlError: a tokenizer, or how it is used, is another one.
    """
    now, before = (found or [] for found in (getattr(model.config, "segmentations", None), stored.get("segmentations")))
    if [each for each in now if each] != [each for each in before if each]:
        raise CalmctlError(
            "the tokenizer of the anchor or of an aug is not the one this run was started with; restore it, or choose "
            "another --out"
        )


def check_optimizer(optimizer: Optimizer, model: nn.Module) -> None:
    """Check that an optimizer holds the parameters that are to be trained: all of them, once, and no others.

    Raises:
        CalmctlError: a frozen parameter is in it, a trainable one is not, or one of a base is trainable.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if isinstance(model, PartsModel):
        own = {id(parameter) for parameter in model.trained_parameters().values()}
        if wrong := trainable - own:
            raise CalmctlError(f"{names[wrong.pop()]} is a base's parameter and not frozen; the bases must not train")
    if wrong := set(held) - trainable:
        raise CalmctlError(f"{names.get(wrong.pop(), 'a parameter of no model')} is in the optimizer, but frozen")
    if wrong := trainable - set(held):
        raise CalmctlError(f"{names[wrong.pop()]} is to be trained, but not in the optimizer")
    if len(held) != len(set(held)):
        raise CalmctlError("a parameter is in the optimizer twice")
