"""Numbers that are none: a model whose logits are NaN or infinite is stopped with the prompt it happened at."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel

from calmctl.errors import CalmctlError


class FiniteLogits(LogitsProcessor):
    """Notes which rows got logits that choose nothing; it changes none, and waits for no device."""

    def __init__(self) -> None:
        self._bad: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary); single tokens may be forbidden (minus infinity)."""
        bad = ~scores.amax(-1).isfinite()
        self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def first_bad(self) -> int | None:
        """Return the first row that got such logits, if any, and forget about all."""
        bad, self._bad = self._bad, None
        return None if bad is None or not bool(bad.any()) else int(bad.nonzero()[0])


class NotFiniteError(CalmctlError):
    """A model computes what is no number.

    Attributes:
        row: which of the prompts it was asked it happened at.
    """

    def __init__(self, model: PreTrainedModel, what: str, row: int, name: str = "") -> None:
        self.model, self.what, self.row = model, what, row
        dtype = str(model.dtype).removeprefix("torch.")
        advice = "load it in bfloat16 or float32" if model.dtype is torch.float16 else "its weights may be damaged"
        super().__init__(
            f"prompt {name or row + 1}: the {what} of {type(model).__name__} are not finite ({dtype} on "
            f"{model.device.type}); {advice}"
        )

    def named(self, names: Sequence[str]) -> "NotFiniteError":
        """Return the error with the name of the prompt."""
        return NotFiniteError(self.model, self.what, self.row, names[self.row])
