"""Safeguards: frozen bases must stay bit-identical, and a loss or weight that is not finite stops the run unsaved."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from calmctl.errors import CalmctlError
from calmctl.modeling.stored.parts import PartsModel
from calmctl.processes.ranks import Ranks

SHOWN_ROWS = 8
# In fp16 the first steps may overflow: the loss scale starts at 2**16 and halves each time.
MOST_SKIPPED = 40


class FrozenBases:
    """Fingerprints of the bases of a model stored in parts, taken before training.

    Attributes:
        fingerprints: of the anchor and the augs.
    """

    def __init__(self, model: PartsModel) -> None:
        self.model = model
        self.fingerprints = model.fingerprints()

    def check(self) -> None:
        """Raise CalmctlError if a base has changed."""
        self._compare(
            self.model.fingerprints(), "changed during the training, although it is frozen; nothing was saved of it"
        )

    def check_same_as(self, recorded: list[dict[str, Any]]) -> None:
        """Raise CalmctlError if a checkpoint of the run was trained with other bases."""
        self._compare(recorded, "is not the one this run was started with; restore it, or choose another --out")

    def _compare(self, others: list[dict[str, Any]], complaint: str) -> None:
        for index, (known, other) in enumerate(zip(self.fingerprints, others, strict=True)):
            if known["weights_sha256"] != other["weights_sha256"]:
                role = f"aug {index - 1}" if index else "anchor"
                raise CalmctlError(f"the {role} {complaint}")


def check_same_reading(model: PartsModel, stored: Mapping[str, Any]) -> None:
    """Check that augs with their own tokenizers read as they did when a checkpoint of the run was written.

    Args:
        stored: the configuration in the checkpoint.

    Raises:
        CalmctlError: a tokenizer, or the way it is used, has changed.
    """
    now, before = (found or [] for found in (getattr(model.config, "segmentations", None), stored.get("segmentations")))
    if [each for each in now if each] != [each for each in before if each]:
        raise CalmctlError(
            "the tokenizer of the anchor or of an aug is not the one this run was started with; restore it, or choose "
            "another --out"
        )


def check_optimizer(optimizer: Optimizer, model: nn.Module) -> None:
    """Check that an optimizer holds every trainable parameter once, and no others.

    Raises:
        CalmctlError: it holds a frozen parameter, lacks or repeats a trainable one, or a base's parameter is trainable.
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


@dataclass
class _Step:
    number: int
    rows: NDArray[np.int64]
    losses: list[Tensor] = field(default_factory=list)
    gradient_norm: float | Tensor = 0.0


class DivergenceWatch:
    """Watches for losses, gradients and parameters that are not finite.

    Losses stay on their device until `check_losses`, so that checking many of them costs one synchronisation. Each
    process sees its share of the losses; all raise the same error.

    Args:
        numbers: the precision, for the error.
    """

    def __init__(self, ranks: Ranks | None = None, numbers: str = "float32") -> None:
        self._ranks, self._numbers = ranks if ranks is not None else Ranks(), numbers
        self._steps: list[_Step] = []
        self._skipped = 0

    def begin(self, step: int, rows: NDArray[np.int64]) -> None:
        """Begin a step on some rows of the data; steps and rows are counted from 1."""
        self._steps.append(_Step(step, rows))

    def add_loss(self, loss: Tensor) -> None:
        """Record the loss of a micro-batch of the current step."""
        self._steps[-1].losses.append(loss.detach())

    def add_gradient_norm(self, norm: float | Tensor) -> None:
        """Record the gradient norm of the current step."""
        self._steps[-1].gradient_norm = norm

    def check_losses(self) -> None:
        """Check the recorded losses and gradient norms, then forget all but the last step.

        Raises:
            CalmctlError: a loss is not finite (names its step and rows), or too many gradients in a row are not.
        """
        losses = [(index, loss) for index, step in enumerate(self._steps) for loss in step.losses]
        values = self._ranks.sum(torch.stack([loss.float() for _, loss in losses]).tolist()) if losses else []
        for (index, _), value in zip(losses, values, strict=True):
            if not math.isfinite(value):
                # A bad gradient often shows first in the next step's loss: blame the step before.
                before = self._steps[max(index - 1, 0)]
                if index and not math.isfinite(before.gradient_norm):
                    raise self._diverged("the gradient is not finite", before)
                raise self._diverged(f"the loss is {value}", self._steps[index])
        self._check_gradients()
        del self._steps[:-1]
        for step in self._steps:
            step.losses.clear()

    @torch.no_grad()
    def check_parameters(self, parameters: Iterable[Tensor]) -> None:
        """Check the parameters before a checkpoint is written.

        Raises:
            CalmctlError: a parameter is not finite.
        """
        finite = [_local(parameter).isfinite().all() for parameter in parameters]
        if self._ranks.sum([0.0 if torch.stack(finite).all() else 1.0])[0]:
            raise self._diverged("the trained parameters are not finite", self._steps[-1])

    def _check_gradients(self) -> None:
        """Raise CalmctlError after too many overflows in a row: fp16 skips steps whose gradient overflows."""
        for step in self._steps[:-1]:
            self._skipped = 0 if math.isfinite(step.gradient_norm) else self._skipped + 1
            if self._skipped == MOST_SKIPPED:
                raise self._diverged(f"the gradient was not finite {MOST_SKIPPED} times in a row", step)

    def _diverged(self, what: str, step: _Step) -> CalmctlError:
        rows = np.unique(step.rows).tolist()
        more = f" and {len(rows) - SHOWN_ROWS} more" * (len(rows) > SHOWN_ROWS)
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + more
        return CalmctlError(
            f"step {step.number}: {what} after rows {shown} of the data (counted from 1), computed in {self._numbers}; "
            "no later checkpoint is kept. Look at these rows or lower train.lr, and start with another --out"
        )


def _local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or the tensor if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
