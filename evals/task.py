"""`Task`, the base of all evaluations: read records, make requests, score the completions that a model wrote."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from data_builders.errors import UserError
from data_builders.files import sha256_of

Record = TypeVar("Record")
# What a model wrote, by request id: one text per sample, in the order of the samples.
Completions = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Request:
    """One text to complete.

    Attributes:
        prompt: the question; never truncated.
        shots: worked examples before the prompt, each with the separator that follows it. Requests of one group share
            them, so a model needs to read them only once; if the context is too small, the first are dropped.
        max_new_tokens: limit on the generated tokens.
        stop: generation ends before any of these strings.
        num_samples: number of completions; 0 = none, only the likelihood of the reference is measured.
        reference: the correct completion, byte for byte; empty = none.
        group: group of the record (a language), by which callers break down figures such as bits per byte.
        messages: a conversation that the model is to continue, each with `role` and `content`; callers whose model has
            a chat template render it and put that in the place of `prompt`.
    """

    id: str
    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    shots: tuple[str, ...] = ()
    num_samples: int = 1
    reference: str = ""
    group: str = ""
    messages: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    @property
    def text(self) -> str:
        """Return the full input of the model: worked examples and prompt."""
        return "".join(self.shots) + self.prompt


@dataclass(frozen=True)
class Completion:
    """A model's completion of a request, without special tokens and stop strings."""

    id: str
    text: str


@dataclass(frozen=True)
class Scores:
    """The outcome of a task; accuracies in percent.

    `metrics` are the headline figures over `n` records, `breakdown` the same figures per group of records, `protocol`
    the settings needed to compare them, `samples` one row per request and sample.
    """

    metrics: dict[str, float]
    n: int
    breakdown: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)


class Task(ABC, Generic[Record]):
    """An evaluation: a frozen dataclass whose fields are its options.

    Subclasses implement `read`, `requests` and `judge`; this class checks the input. Records have a type of the task's
    own, opaque to others. Increase `version` whenever prompts change or the same completions may score differently;
    results of different versions are not compared.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @property
    def measures_choices(self) -> bool:
        """Return whether likelihoods of choices are all that is measured: no completions, and no bits per byte."""
        return False

    def load(self, data: Path, limit: int | None = None) -> list[Record]:
        """Read the records from a user's path; `limit` = number of records, the first ones (of each language or group).

        Raises:
            UserError: the data or an option is invalid; callers load the model only afterwards.
        """
        if limit is not None and limit < 1:
            raise UserError(f"limit: {limit} is too small; use at least 1, or null for every record")
        return self.read(data, limit)

    def data_sha256(self, data: Path) -> str:
        """Return the checksum of the data's manifest, file or files; of a dataset of the hub its name."""
        manifest = data / "manifest.json"
        return sha256_of(manifest if manifest.is_file() else data) if data.exists() else str(data)

    def score(self, records: Sequence[Record], completions: Completions) -> Scores:
        """Score completions, given by request id.

        Raises:
            UserError: there are no records, or completions are missing, too many, or for unknown requests.
        """
        return self.judge(records, self.checked_requests(records, completions), completions)

    def checked_requests(self, records: Sequence[Record], completions: Completions) -> list[Request]:
        """Return the requests of records; raise UserError unless the completions match them exactly."""
        if not records:
            raise UserError("records: there are none; score at least one")
        requests = self.requests(records)
        require_completions(requests, completions)
        return requests

    def measure(self, records: Sequence[Record], bits: Mapping[str, float]) -> Scores:
        """Return what the likelihoods of references say: here their bits per byte, over all and by group.

        Args:
            bits: negative log2-likelihood of each reference after its prompt, by request id.
        """
        sums: dict[str, list[float]] = {}
        for request in self.requests(records):
            for name in {"all", request.group or "all"}:
                total = sums.setdefault(name, [0.0, 0.0])
                total[0] += bits[request.id]
                total[1] += len(request.reference.encode())
        ratios = {name: round(total / size, 4) for name, (total, size) in sorted(sums.items())}
        return Scores({"bits_per_byte": ratios.pop("all")}, len(records), {"bits_per_byte": ratios})

    @abstractmethod
    def read(self, data: Path, limit: int | None) -> list[Record]:
        """Read the records for `load`."""

    @abstractmethod
    def requests(self, records: Sequence[Record]) -> list[Request]:
        """Return every request that scoring these records needs."""

    @abstractmethod
    def judge(self, records: Sequence[Record], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score completions that `checked_requests` has checked."""


@dataclass(frozen=True)
class RecordSet:
    """What the records of one language share.

    Attributes:
        shots: worked examples, each with the separator that follows it.
        exemplars: ids of the worked examples.
        files: sha256 of each data file.
    """

    language: str
    shots: tuple[str, ...]
    exemplars: tuple[str, ...]
    files: Mapping[str, str] = field(repr=False)


def before_stops(text: str, stops: Iterable[str]) -> str:
    """Return the text before its first stop string, or all of it if it contains none."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def by_id(completions: Iterable[Completion]) -> dict[str, list[str]]:
    """Group completions by request id; several of one id are its samples, in order."""
    gathered: dict[str, list[str]] = {}
    for completion in completions:
        gathered.setdefault(completion.id, []).append(completion.text)
    return gathered


def require_completions(requests: Sequence[Request], completions: Completions) -> None:
    """Raise UserError unless every request, and nothing else, has as many completions as it asks for."""
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
    """Return ids for an error message: all of up to three, else the first two and the last."""
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
    """Return a result's protocol: everything needed to reproduce and check the figures.

    Args:
        format: id of the prompt format.
        requests: all requests; the first is quoted in full.
        metrics: name, signature and settings of each metric.
        sets: one per language; exemplars of a set without a language are left out.
        skipped: the reason for each record left out, by id.
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
    """Return the means over languages and their standard errors, treating languages as independent."""
    languages = list(by_language.values())
    metrics = {name: sum(each[name] for each in languages) / len(languages) for name in names}
    errors = [each["standard_error"] for each in languages]
    return metrics, {name: math.hypot(*(each[name] for each in errors)) / len(errors) for name in metrics}
