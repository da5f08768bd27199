"""Ranks: the processes that torchrun starts, and the few values that they exchange."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from calmctl.errors import UserError

# Timeout for waiting ranks: the slowest one may have hours of work left, which is no failure.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """The rank of this process and the number of ranks that share the work; one unless torchrun started more."""

    index: int = 0
    count: int = 1
    local_index: int = 0
    group: Any = None

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that writes results."""
        return self.index == 0

    @property
    def device(self) -> torch.device:
        """Return the GPU of this process, or the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local_index % torch.cuda.device_count())

    def from_first(self, value: Any = None) -> Any:
        """Return the first rank's value on every rank."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks on every rank, once all have called it."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the element-wise sums over all ranks on every rank."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums, group=self.group)
        return sums.tolist()

    def wait(self) -> None:
        """Wait until every rank has called it."""
        if self.count > 1:
            distributed.barrier(group=self.group)


_joined = Ranks()
_planned = (1, 1)


def current_ranks() -> Ranks:
    """Return the ranks that this process has joined; a single rank outside `joined_ranks`."""
    return _joined


def num_processes() -> int:
    """Return the number of processes that share the work, or would in a planned run."""
    return max(_joined.count, _planned[0] * _planned[1])


def check_devices() -> None:
    """Raise UserError if this machine has GPUs, but not one for each planned process."""
    if torch.cuda.is_available() and _planned[0] > torch.cuda.device_count():
        raise _too_few_gpus()


@contextmanager
def planned_processes(count: int, nnodes: int = 1) -> Iterator[None]:
    """Let the block plan for `count` processes on each of `nnodes` machines, which are not started."""
    global _planned
    before, _planned = _planned, (count, nnodes)
    try:
        yield
    finally:
        _planned = before


def _too_few_gpus() -> UserError:
    found = torch.cuda.device_count()
    return UserError(f"--nproc-per-node: there are {found} GPUs here; every process that trains needs its own")


@contextmanager
def joined_ranks(trains: bool = False) -> Iterator[Ranks]:
    """Join the processes that torchrun started with this one, for the duration of the block.

    Args:
        trains: GPU tensors will be exchanged too, by NCCL, which needs one GPU per process.

    Raises:
        UserError: there are fewer GPUs than processes that train.
    """
    global _joined
    count, local_index = (
        int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if count == 1 or _joined.count > 1:
        yield _joined
        return
    # Values on the CPU go over gloo, also when tensors are on GPUs.
    backend = "gloo"
    if trains and torch.cuda.is_available():
        if local_index >= torch.cuda.device_count():
            raise _too_few_gpus()
        torch.cuda.set_device(local_index)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend)
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    _joined = Ranks(distributed.get_rank(), count, local_index, group)
    try:
        yield _joined
    except BaseException:
        # Other ranks may be anywhere in their work: destroying the group could wait for them forever.
        _joined = Ranks()
        raise
    _joined = Ranks()
    distributed.destroy_process_group()
