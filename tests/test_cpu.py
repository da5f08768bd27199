"""What is set before a process computes on a CPU."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

FAULTS = """
import resource, sys, torch
from calmctl.processes.cpu import set_up_cpu

if sys.argv[1] == "set-up":
    set_up_cpu(1)
faults = []
for _ in range(24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)  # 64 MB
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[-8:]), torch.get_num_threads())
"""


def measured(how: str, **variables: str) -> list[int]:
    command, environment = [sys.executable, "-c", FAULTS, how], os.environ | variables
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept where the C library is glibc")
@pytest.mark.skipif(torch.cuda.is_available(), reason="memory is kept where there is no GPU")
@pytest.mark.skipif(HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="huge pages are few")
def test_freed_memory_is_used_again_without_a_detour_by_the_kernel():
    """The heap grows for some allocations first, until there is a block in it that is large enough."""
    faults, threads = measured("set-up")
    assert threads == 1 and faults < 20_000 < measured("as it is")[0]  # a tensor has 15,625 pages
    assert measured("set-up", MALLOC_TRIM_THRESHOLD_="131072")[0] > 20_000  # the user knows better
