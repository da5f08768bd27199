"""Memory: whether an error is a lack of it, giving back what can be, and not wasting it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a device, or the machine, had not enough memory; torch.OutOfMemoryError is a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)


def release_memory() -> None:
    """Give back what nothing refers to any more; not while the error that reported the lack is being handled."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def head_read_once(model: PreTrainedModel) -> Iterator[None]:
    """Give the LM head its input in one piece.

    What models cut out of their states (the last position of each prompt) is none, and without gradients torch then
    makes a copy of the head's weights for every row: gigabytes, and a tenth of the time of short answers.
    """

    def in_one_piece(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in args)

    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(in_one_piece) if head is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
