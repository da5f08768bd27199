"""Memory: whether an error is a lack of it, and giving back what can be."""

import gc

import torch

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a device, or the machine, had not enough memory; torch.OutOfMemoryError is a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)


def release_memory() -> None:
    """Give back what nothing refers to any more; not while the error that reported the lack is being handled."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
