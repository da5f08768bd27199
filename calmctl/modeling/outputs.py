"""What the forward pass of our models returns."""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast


@dataclass
class ComposedOutput(CausalLMOutputWithPast):
    """What a forward pass returns.

    Attributes:
        correct: (labels,) while training: whether each label, in row-major order, was the most likely token.
    """

    correct: Tensor | None = None
