"""Ranks: the processes that torchrun starts, and the little that they have to tell each other."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from calmctl.errors import UserError

# A rank waits for the slowest one, which may have hours of work left: not to be taken for a failure.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """The place of a process among those that share the work; alone unless torchrun says otherwise."""

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
        """Return, on every rank, what the first one gives."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Return, on every rank, what each gives; nobody goes on before all have come here."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, group=self.group)
        return values

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return, on every rank, the sums over all of them."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums, group=self.group)
        return sums.tolist()

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.count > 1:
            distributed.barrier(group=self.group)


_joined = Ranks()
_planned = (1, 1)


def current_ranks() -> Ranks:
    """Return the ranks that this process has joined; alone outside of `joined_ranks`."""
    return _joined


def num_processes() -> int:
    """Return how many processes share the work, or would in a run that is only planned."""
    return max(_joined.count, _planned[0] * _planned[1])


def check_devices() -> None:
    """Raise UserError unless every process that would train here has a GPU of its own, where there are GPUs."""
    if torch.cuda.is_available() and _planned[0] > torch.cuda.device_count():
        raise _too_few_gpus()


@contextmanager
def planned_processes(count: int, nnodes: int = 1) -> Iterator[None]:
    """Let the block plan for so many processes on each of some machines, which do not exist."""
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
        trains: tensors on GPUs will be exchanged too, by NCCL, which needs a GPU for every process.

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
    # A few words are exchanged by gloo whatever the tensors are on.
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
        # The others may be in the middle of anything: leaving in good order could wait for them forever.
        _joined = Ranks()
        raise
    _joined = Ranks()
    distributed.destroy_process_group()
