"""CPU settings of this process: the number of threads, and the reuse of freed memory."""

import ctypes
import os
import sys

import torch

# Parameters of glibc's mallopt, as its malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_TUNED = frozenset({"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"})


def set_up_cpu(threads: int = 0) -> None:
    """Set the number of CPU threads (0 = torch's default), and keep freed memory for the next tensors.

    glibc returns large blocks to the kernel, which clears them page by page before their next use: in a training, every
    step. The allocator is left alone with a GPU (host memory is then used for loading only), without glibc, and where
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
