"""Import what a command needs, quickly: imports take most of the time of a short command."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from calmctl.processes.garbage import without_collection


@contextmanager
def loading() -> Iterator[None]:
    """Switch garbage collection off during imports, and exempt from it what they create, which stays in use.

    Does nothing if torch is loaded already: then there may be garbage.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    with without_collection():
        try:
            yield
        finally:
            gc.freeze()
