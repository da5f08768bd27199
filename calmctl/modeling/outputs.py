"""The output of our models' forward pass."""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast


@dataclass
class ComposedOutput(CausalLMOutputWithPast):
    """Output of a forward pass.

    Attributes:
        correct: (labels,) while training: whether each label, in row-major order, was the most likely token.
    """

    correct: Tensor | None = None
