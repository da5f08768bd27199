"""Time and memory measurement for shared machines: interleaved times, peak memory of a process.

A time is never compared with one taken minutes earlier. The variants of a case take turns (A B C, A B C, ...), every
round gives one ratio, and the median of the rounds counts. On one CPU thread a time is the processor time of the
process, unaffected by other programs; on several threads or CUDA it is wall-clock time, synchronised.
"""

import gc
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

Times = dict[str, list[float]]
Found = TypeVar("Found")
# What takes seconds to import, so that processes of their own need not import it again.
IMPORTED = ["calmctl.training.session", "transformers.models.auto.modeling_auto", "calmctl.modeling.composed"]


def interleaved(variants: dict[str, Callable[[], object]], rounds: int, device: str) -> Times:
    """Return the seconds of every variant in each round, after one unmeasured round."""
    clock = clock_of(device)
    times: Times = {name: [] for name in variants}
    for measured in range(-1, rounds):
        for name, run in variants.items():
            _synchronize(device)
            began = clock()
            run()
            _synchronize(device)
            if measured >= 0:
                times[name].append(clock() - began)
    return times


def clock_of(device: str) -> Callable[[], float]:
    """Return the clock to use: processor time on one CPU thread, else wall-clock time."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def ratio(times: Times, numerator: str, *denominator: str) -> float:
    """Return the median over rounds of one variant's time divided by the sum of others'."""
    rounds = zip(times[numerator], *(times[name] for name in denominator), strict=True)
    return median(first / sum(rest) for first, *rest in rounds)


def seconds(times: Times) -> dict[str, float]:
    """Return the median seconds of every variant, for the record."""
    return {name: round(median(values), 6) for name, values in times.items()}


def peak_bytes(run: Callable[[], object], device: str, held_before: int) -> int:
    """Return the peak memory of `run` in bytes: weights, gradients, optimizer state and activations.

    On CUDA it is the allocator's peak. On CPU (Linux) it is the peak of the resident set, reset beforehand, minus
    `held_before`, what the process held before its models were built; that needs a fresh process, because memory freed
    earlier would be reused and not counted.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        run()
        _synchronize(device)
        return torch.cuda.max_memory_allocated()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return _status("VmHWM") - held_before


def in_fresh_process(function: Callable[..., Found], *arguments: object) -> Found:
    """Return what a function of a script returns in a process that has imported modules and done nothing else."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with ProcessPoolExecutor(1, context) as processes:
        return processes.submit(function, *arguments).result()


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    return _status("VmRSS")


def live_objects() -> dict[str, int]:
    """Return the number of objects that the garbage collector tracks, and of tensors among them."""
    gc.collect()
    things = gc.get_objects()
    return {"objects": len(things), "tensors": sum(issubclass(type(thing), torch.Tensor) for thing in things)}


def cpu_name() -> str:
    """Return the processor's name (Linux), or the machine type."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
