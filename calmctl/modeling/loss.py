"""Loss on labelled positions only, for any causal language model.

Only rows with a label reach the LM head, so that the full (batch, seq, vocabulary) logits never exist: with a prompt
masked out and a large vocabulary this is most of the head's time and memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

IGNORED = -100


@contextmanager
def labelled_rows_only(model: PreTrainedModel, labels: Tensor) -> Iterator[Tensor]:
    """Let a model compute logits (1, rows, vocabulary) only for positions that predict a label.

    Works through the input of the model's LM head, so whatever the architecture does to its logits afterwards
    (scaling, soft-capping) still happens.

    Args:
        labels: (batch, seq), -100 = none; the label at position t is predicted at t - 1.

    Yields:
        The labels (1, rows) that belong to the logits, in row-major order of the batch.
    """
    targets = labels[:, 1:]
    rows = targets != IGNORED

    def select(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][:, :-1][rows][None], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield targets[rows][None]
    finally:
        handle.remove()


def completion_loss(logits: Tensor, targets: Tensor, num_items: Tensor | int | None = None) -> Tensor:
    """Return the cross-entropy of logits (..., vocabulary) against targets (...), which are already shifted.

    Args:
        num_items: divide the sum by this many labels (of all accumulated micro-batches); None = by those here.
    """
    flat = logits.flatten(0, -2).float()
    total = F.cross_entropy(flat, targets.flatten().to(flat.device), ignore_index=IGNORED, reduction="sum")
    if num_items is None:
        num_items = (targets != IGNORED).sum().clamp(min=1)
    return total / num_items
