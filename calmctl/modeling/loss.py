"""Loss on labelled positions only, for any causal language model.

Only positions with a label reach the LM head, so the full (batch, seq, vocabulary) logits never exist: with masked
prompts and a large vocabulary this saves most of the head's time and memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from transformers import PreTrainedModel

from calmctl.modeling import layers
from calmctl.modeling.views import head_of

IGNORED = -100
# Number of logits per chunk: 256 MiB in float32. Smaller chunks read the head's weights more often.
CHUNK_ELEMENTS = 2**26


@contextmanager
def labelled_rows_only(model: PreTrainedModel, labels: Tensor) -> Iterator[Tensor]:
    """Let a model compute logits (1, rows, vocabulary) only for positions that predict a label.

    A hook selects the LM head's input, so whatever the architecture does to its logits afterwards (scaling,
    soft-capping) still happens.

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
        num_items: number of labels to divide the sum by (of all accumulated micro-batches); None = those here.
    """
    flat = logits.flatten(0, -2).float()
    total = F.cross_entropy(flat, targets.flatten().to(flat.device), ignore_index=IGNORED, reduction="sum")
    if num_items is None:
        num_items = (targets != IGNORED).sum().clamp(min=1)
    return total / num_items


def frozen_head_loss(
    model: PreTrainedModel, states: Tensor, labels: Tensor, num_items: Tensor | int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the loss of a model with a frozen LM head, and which labels (rows,) were the most likely tokens.

    A frozen head needs only the gradient of its input, which is known as soon as a chunk's loss is. So logits exist for
    one chunk of the labelled positions at a time, and nothing is computed twice.

    Args:
        states: (batch, seq, dim), the last hidden states of the model's decoder.
        labels: (batch, seq), -100 = no loss; the label at position t is predicted at t - 1.
        num_items: see `completion_loss`.

    Raises:
        ValueError: the head is not frozen; it would get no gradient.
    """
    if any(parameter.requires_grad for parameter in model.get_output_embeddings().parameters()):
        raise ValueError("the LM head must be frozen (requires_grad_(False))")
    states, targets = states[:, :-1], labels[:, 1:].to(states.device)
    rows = targets != IGNORED
    total, correct = _FrozenHeadLoss.apply(states[rows], targets[rows], head_of(model), _chunk_rows(model))
    return total / (rows.sum().clamp(min=1) if num_items is None else num_items), correct


def _chunk_rows(model: PreTrainedModel) -> int:
    return max(1, CHUNK_ELEMENTS // layers.text_config(model.config).vocab_size)


def _kept_here() -> saved_tensors_hooks:
    """Keep tensors for the backward pass as they are, even under checkpointing around the loss.

    Such checkpointing would recompute the loss for this backward pass, which runs inside of the forward pass:
    endlessly.
    """
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


class _FrozenHeadLoss(torch.autograd.Function):
    """Summed cross-entropy of rows (rows, dim), whose gradient is computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], chunk: int
    ) -> tuple[Tensor, Tensor]:
        correct, is_needed = [], ctx.needs_input_grad[0]
        total = torch.zeros((), device=rows.device)
        gradient = torch.empty_like(rows)
        pieces = zip(rows.split(chunk), targets.to(rows.device).split(chunk), gradient.split(chunk), strict=True)
        for states, labels, slot in pieces:
            with torch.set_grad_enabled(is_needed), _kept_here():
                states = states.detach().requires_grad_(is_needed)
                logits = head(states[None])[0].float()
                loss = F.cross_entropy(logits, labels.to(logits.device), reduction="sum")
                if is_needed:
                    slot.copy_(torch.autograd.grad(loss, states)[0])
            total += loss.detach().to(total.device)
            correct.append(logits.argmax(-1).to(labels.device) == labels)
        ctx.save_for_backward(gradient)
        is_correct = torch.cat(correct)
        ctx.mark_non_differentiable(is_correct)
        return total, is_correct

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors  # read once: checkpointing around the loss gives them only once
        return gradient * upstream.to(gradient.dtype), None, None, None
