"""Throughput: what has been generated so far, how fast, and how much is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Throughput:
    """What has been generated so far.

    Attributes:
        total: completions wanted.
        done: completions there are, those of an earlier attempt included.
        generated: completions made now.
        tokens: tokens generated now.
        batch_size: the largest batch that memory has sufficed for so far; 0 = nothing has been generated.
        on_batch: called after every batch.
    """

    total: int = 0
    done: int = 0
    generated: int = 0
    tokens: int = 0
    batch_size: int = 0
    on_batch: Callable[["Throughput"], None] = field(default=lambda _: None)
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Return the time since the beginning."""
        return time.monotonic() - self.began

    @property
    def tokens_per_second(self) -> float:
        """Return the average so far."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def eta_seconds(self) -> float | None:
        """Return how long the rest will take at this speed; None before the first batch."""
        return self.seconds / self.generated * (self.total - self.done) if self.generated else None

    def add(self, completions: int, tokens: int) -> None:
        """Count a finished batch."""
        self.done += completions
        self.generated += completions
        self.tokens += tokens
        self.on_batch(self)
