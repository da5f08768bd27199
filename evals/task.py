"""The frame every evaluation fits: records in, requests to a model out, completions back, scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from data_builders.errors import UserError

Record = TypeVar("Record")
# What a model wrote, by request id: one text per sample, in the order of the samples.
Completions = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Request:
    """One text to continue.

    Attributes:
        prompt: the question, which is always asked whole.
        shots: worked examples that stand before it, each with the separator that follows it. Requests of one group
            share them, so that a model need read them only once; where a context is too small, the first are dropped.
        max_new_tokens: in tokens.
        stop: generation ends before any of these strings.
        num_samples: how many completions are wanted; 0 = none, only the likelihood of the reference is of interest.
        reference: what a right completion would be, to the byte; empty = there is none in particular.
        group: which records it belongs to (a language), for figures that are not the task's own.
    """

    id: str
    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    shots: tuple[str, ...] = ()
    num_samples: int = 1
    reference: str = ""
    group: str = ""

    @property
    def text(self) -> str:
        """Return what the model reads."""
        return "".join(self.shots) + self.prompt


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a request's prompt, without special tokens and stop strings."""

    id: str
    text: str


@dataclass(frozen=True)
class Scores:
    """The outcome of a task; accuracies in percent.

    `metrics` are the headline figures over `n` records, `breakdown` the same figures over groups of
    records, `protocol` what a reader needs to compare them, `samples` one row per request and sample.
    """

    metrics: dict[str, float]
    n: int
    breakdown: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)


class Task(ABC, Generic[Record]):
    """An evaluation: a frozen dataclass whose fields are its options.

    A task writes `read`, `requests` and `judge`; what every task checks stands here. Records are the task's own type;
    nobody else looks into them. `version` changes whenever the same completions may score differently or other prompts
    are asked; results of different versions are not compared.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    def load(self, data: Path, limit: int | None = None) -> list[Record]:
        """Read the records from a user's path; `limit` = the first so many (of each language, where there are several).

        Raises:
            UserError: the data or an option cannot be used; before any model is loaded.
        """
        if limit is not None and limit < 1:
            raise UserError(f"limit: {limit} is too small; use at least 1, or null for every record")
        return self.read(data, limit)

    def score(self, records: Sequence[Record], completions: Completions) -> Scores:
        """Score completions, given by request id.

        Raises:
            UserError: there is nothing to score, or completions are missing, too many, or of other requests.
        """
        return self.judge(records, self.checked_requests(records, completions), completions)

    def checked_requests(self, records: Sequence[Record], completions: Completions) -> list[Request]:
        """Return the requests of records; raises UserError unless there are completions of these and no others."""
        if not records:
            raise UserError("records: there are none; score at least one")
        requests = self.requests(records)
        require_completions(requests, completions)
        return requests

    @abstractmethod
    def read(self, data: Path, limit: int | None) -> list[Record]:
        """Read the records, as `load` says."""

    @abstractmethod
    def requests(self, records: Sequence[Record]) -> list[Request]:
        """Return every request that scoring these records needs."""

    @abstractmethod
    def judge(self, records: Sequence[Record], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score completions that are complete."""


@dataclass(frozen=True)
class RecordSet:
    """What the records of one language share.

    Attributes:
        shots: worked examples, each with the separator that follows it.
        exemplars: their ids.
        files: sha256 by file of the data.
    """

    language: str
    shots: tuple[str, ...]
    exemplars: tuple[str, ...]
    files: Mapping[str, str] = field(repr=False)


def before_stops(text: str, stops: Iterable[str]) -> str:
    """Return what stands before the first of the stop strings, all of the text where there is none."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def by_id(completions: Iterable[Completion]) -> dict[str, list[str]]:
    """Gather completions by request id; several of one id are its samples, in their order."""
    gathered: dict[str, list[str]] = {}
    for completion in completions:
        gathered.setdefault(completion.id, []).append(completion.text)
    return gathered


def require_completions(requests: Sequence[Request], completions: Completions) -> None:
    """Raise UserError unless there are completions for these requests and no others, as many as each asks for."""
    known = dict.fromkeys(request.id for request in requests)
    if unknown := [name for name in completions if name not in known]:
        raise UserError(
            f"completions: {unknown[0]!r} is no request of this task and data ({len(unknown)} such ids);"
            f" its ids are {_named(list(known))}; score them with the data and options they were made for"
        )
    missing = [request.id for request in requests if request.num_samples and not completions.get(request.id)]
    if missing:
        raise UserError(
            f"completions: {missing[0]!r} is missing ({len(missing)} of {len(requests)} requests have none);"
            f" its ids are {_named(list(known))}; give a completion for every request, or score those that have one:"
            " ids=given"
        )
    for request in requests:
        if (given := len(completions.get(request.id, ()))) != request.num_samples:
            raise UserError(
                f"completions: {request.id!r} has {given}, and {request.num_samples} are wanted; give as many for each,"
                " or set options.num_samples where the task has it"
            )


def _named(ids: Sequence[str]) -> str:
    """Return the first few of some ids and the last, for people."""
    return " ".join(map(repr, ids)) if len(ids) <= 3 else f"{ids[0]!r} {ids[1]!r} ... {ids[-1]!r}"


def describe(
    format: str,
    requests: Sequence[Request],
    metrics: Mapping[str, Any],
    split: str,
    sets: Sequence[RecordSet],
    skipped: Mapping[str, str] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Return a result's protocol: how it came about, so that a stranger can repeat it and argue with it.

    Args:
        format: id of the prompt format.
        requests: what was asked; the first is quoted whole.
        metrics: name, signature and settings of each metric.
        sets: what the records of each language share; worked examples of one without a name are not told.
        skipped: why a record was left out, by its id.
    """
    return {
        "format": format,
        "split": split,
        "shots": len(sets[0].shots),
        "exemplars": {each.language: list(each.exemplars) for each in sets if each.language},
        "stop": list(dict.fromkeys(stop for request in requests for stop in request.stop)),
        "max_new_tokens": max(request.max_new_tokens for request in requests),
        "metrics": dict(metrics),
        "data_sha256": {file: sha256 for each in sets for file, sha256 in each.files.items()},
        "num_scored": len(requests),
        "num_skipped": len(skipped or {}),
        "skipped": dict(skipped or {}),
        "first_prompt": requests[0].text,
        **others,
    }


def averages(by_language: Mapping[str, Any], names: Iterable[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means of the languages' figures, and their standard errors, as languages are independent."""
    languages = list(by_language.values())
    metrics = {name: sum(each[name] for each in languages) / len(languages) for name in names}
    errors = [each["standard_error"] for each in languages]
    return metrics, {name: math.hypot(*(each[name] for each in errors)) / len(errors) for name in metrics}
