"""Loading what a command needs, which is most of the time that a short one takes."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import modules without looking for garbage, then or later, among what they make: it stays.

    Only where torch was not loaded before: elsewhere there may be garbage.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
