"""How this process computes on a CPU: threads, and what becomes of memory that tensors free."""

import ctypes
import os
import sys

import torch

# Parameters of glibc's mallopt, as its malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_TUNED = frozenset({"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"})


def set_up_cpu(threads: int = 0) -> None:
    """Set the number of CPU threads, 0 = torch's own choice, and keep freed memory for the next tensors.

    glibc gives large blocks back to the kernel, which clears them page by page before every use, and that again and
    again in every step of a training. Where there is a GPU, which has an allocator of its own, memory of the host is
    given back as ever: what is loaded goes through it once. Nor is anything changed elsewhere than with glibc, or where
    the user has set one of glibc's own variables (`MALLOC_TRIM_THRESHOLD_=131072` is its default).
    """
    if threads:
        torch.set_num_threads(threads)
    if torch.cuda.is_available() or not sys.platform.startswith("linux") or not _TUNED.isdisjoint(os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
