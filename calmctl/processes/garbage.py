"""Python's search for reference cycles, which takes longer than what it interrupts where many objects are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Do not look for reference cycles in the block; also a decorator.

    For blocks that make many small objects and few cycles, such as reading a tokenizer of 262,000 tokens, which takes
    half the time so.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
