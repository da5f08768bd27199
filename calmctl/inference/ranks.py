"""Ranks: the processes that torchrun starts, and the little that they have to tell each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

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


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started with this one, for the duration of the block."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    # Only a few words are exchanged, so gloo does for GPUs too.
    distributed.init_process_group("gloo")
    try:
        group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        yield Ranks(distributed.get_rank(), count, int(os.environ.get("LOCAL_RANK", "0")), group)
    finally:
        distributed.destroy_process_group()
