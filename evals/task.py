"""The frame every evaluation fits: records in, requests to a model out, completions back, scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from data_builders.errors import DataError

Record = TypeVar("Record")


@dataclass(frozen=True)
class Request:
    """One text to continue. `max_new_tokens` is in tokens; generation ends at any of the `stop` strings."""

    id: str
    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a request's prompt, without special tokens and stop strings."""

    id: str
    text: str


@dataclass(frozen=True)
class Scores:
    """The outcome of a task; accuracies in percent.

    `metrics` are the headline figures over `n` records, `breakdown` the same figures over groups of
    records, `protocol` what a reader needs to compare them, `samples` one row per request.
    """

    metrics: dict[str, float]
    n: int
    breakdown: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)


class Task(Protocol[Record]):
    """An evaluation. Records are the task's own type; nobody else looks into them."""

    name: str

    def load(self, data: Path, limit: int | None = None) -> list[Record]:
        """Read the records of a data folder, the first `limit` of them where given."""
        ...

    def requests(self, records: Sequence[Record]) -> list[Request]:
        """Return every request that scoring these records needs."""
        ...

    def score(self, records: Sequence[Record], completions: Mapping[str, Completion]) -> Scores:
        """Score completions, given by request id; raises DataError where one is missing."""
        ...


def by_id(completions: Iterable[Completion]) -> dict[str, Completion]:
    """Index completions by request id; raises DataError where an id occurs twice."""
    indexed: dict[str, Completion] = {}
    for completion in completions:
        if completion.id in indexed:
            raise DataError(f"completions: id {completion.id!r} occurs twice; give one completion per request")
        indexed[completion.id] = completion
    return indexed


def require_completions(requests: Sequence[Request], completions: Mapping[str, Completion]) -> None:
    """Raise DataError naming the first request without a completion and how many there are."""
    missing = [request.id for request in requests if request.id not in completions]
    if missing:
        raise DataError(
            f"completions: {missing[0]!r} is missing ({len(missing)} of {len(requests)} requests have none);"
            " give a completion for every request, or limit the records to those that have one"
        )


def require_limit(limit: int | None) -> None:
    """Raise DataError where a limit on the records is given and leaves none."""
    if limit is not None and limit < 1:
        raise DataError(f"limit: {limit} is too small; use at least 1, or null for every record")
