"""The fifteen reasoning sets of LLM-Adapters (arXiv 2304.01933): questions asked and answers read as its code does.

Prompt, generation settings and rules of extraction are those of `evaluate.py` and `commonsense_evaluate.py` at
AGI-Edgerunners/LLM-Adapters 816657208af4, but for what is wrong there: no padding is ever read as text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_builders.benchmarks.reasoning import (
    ARITHMETIC,
    ASKED,
    COMMONSENSE,
    RESPONSE,
    Form,
    ReasoningProblem,
    ReasoningSet,
)
from data_builders.benchmarks.reasoning_rows import choose_sets, read_reasoning
from data_builders.errors import UserError, require_at_least
from evals.choices import HARNESS, HARNESS_RULES, NORMALISED, choices_of, decided
from evals.task import Completions, RecordSet, Request, Scores, Task, averages, before_stops, describe

Protocol = Literal["llm-adapters", "likelihood"]
_TOLERANCE = 0.001
_ANY_NUMBER = re.compile(r"-?\d+\.?\d*")
_RULES = {
    "number": f"the last number without its commas, correct within {_TOLERANCE}",
    "letter": "the first capital letter from A to E, wherever it stands",
    "label": "the first label of the set, wherever it stands",
}


@dataclass(frozen=True)
class ReasoningRecord:
    """One question of a set."""

    problem: ReasoningProblem
    kind: ReasoningSet
    set: RecordSet

    @property
    def id(self) -> str:
        """Return the question's id."""
        return self.problem.id


@dataclass(frozen=True)
class ReasoningTask(Task[ReasoningRecord]):
    """Base of the two groups of sets; accuracies are averaged over sets, as in the published tables.

    Attributes:
        sets: names of the sets' folders; empty = all, which must be there.
        form: white space of the prompt: `exact` as the published code writes it, `clean` without indentation.
        max_new_tokens: per answer.
    """

    version: ClassVar[int] = 1
    known: ClassVar[tuple[ReasoningSet, ...]]

    sets: tuple[str, ...] = ()
    form: Form = "exact"
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range."""
        if self.form not in ASKED:
            raise UserError(f"form: {self.form!r} is not one of {', '.join(ASKED)}")
        require_at_least("max_new_tokens", self.max_new_tokens, 1)

    def read(self, data: Path, limit: int | None) -> list[ReasoningRecord]:
        """Read the sets; `limit` = number of questions per set."""
        records = []
        for which in choose_sets(data, self.known, self.sets):
            problems, files = read_reasoning(data, which)
            shared = RecordSet(which.name, (), (), files)
            records += [ReasoningRecord(problem, which, shared) for problem in problems[:limit]]
        return records

    def requests(self, records: Sequence[ReasoningRecord]) -> list[Request]:
        """Return one request per question."""
        before, after = ASKED[self.form]
        return [
            Request(
                r.id,
                f"{before}{r.problem.instruction}{after}",
                self.max_new_tokens,
                stop=(RESPONSE,),
                group=r.set.language,
            )
            for r in records
        ]

    def judge(
        self, records: Sequence[ReasoningRecord], requests: Sequence[Request], completions: Completions
    ) -> Scores:
        """Score the answers; beside each set's accuracy stands that of chance and of its most frequent answer."""
        samples = [self._sample(record, completions[record.id][0]) for record in records]
        by_set = _by_set(self.known, records, samples, {"accuracy": "correct"})
        for name, figures in by_set.items():
            found = [each["answer"] for each, record in zip(samples, records, strict=True) if record.kind.name == name]
            figures["unanswered"] = 100 * found.count(None) / len(found)
        metrics, standard_error = averages(by_set, ("accuracy",))
        rules = {"accuracy": {each.name: _RULES[each.kind] for each in self.known if each.name in by_set}}
        return Scores(
            metrics=metrics,
            n=len(records),
            breakdown={"by_set": by_set, "standard_error": standard_error},
            protocol=_described(f"llm-adapters, {self.form}", records, requests, rules),
            samples=samples,
        )

    def _sample(self, record: ReasoningRecord, text: str) -> dict[str, Any]:
        problem = record.problem
        given = extracted(record.kind, text)
        return {
            "id": record.id,
            "prompt": problem.instruction,
            "completion": text,
            "answer": given,
            "reference": problem.answer,
            "correct": is_right(record.kind, given, problem.answer),
        }


@dataclass(frozen=True)
class CommonsenseTask(ReasoningTask):
    """BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC-easy, ARC-challenge, OpenBookQA: which of the listed answers.

    Attributes:
        protocol: `llm-adapters`: the model writes a label; `likelihood`: the choice that it finds likeliest counts, as
            in lm-evaluation-harness (`evals.choices`), and nothing is written.
    """

    name: ClassVar[str] = "commonsense"
    known: ClassVar[tuple[ReasoningSet, ...]] = COMMONSENSE

    protocol: Protocol = "llm-adapters"

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range."""
        super().__post_init__()
        if self.protocol not in ("llm-adapters", "likelihood"):
            raise UserError(f"protocol: {self.protocol!r} is not one of llm-adapters, likelihood")
        for name in ("form", "max_new_tokens") if self.measures_choices else ():
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise UserError(f"{name}={value}: nothing is written where protocol=likelihood; leave it out")

    @property
    def measures_choices(self) -> bool:
        """Return whether likelihoods are measured."""
        return self.protocol == "likelihood"

    def read(self, data: Path, limit: int | None) -> list[ReasoningRecord]:
        """Read the sets; for likelihoods either all or none of BoolQ's rows must have their passage."""
        records = super().read(data, limit)
        asked = [record for record in records if record.kind.name == "boolq"]
        if self.measures_choices and 0 < (count := sum(bool(each.problem.passage) for each in asked)) < len(asked):
            raise UserError(
                f"{data / 'boolq'}: {count} of {len(asked)} rows have a passage; give it to all, or to none"
            )
        return records

    def requests(self, records: Sequence[ReasoningRecord]) -> list[Request]:
        """Return one request per question, or for likelihoods one per choice."""
        if self.protocol == "llm-adapters":
            return super().requests(records)
        return [
            Request(
                f"{r.id}#{place}", each.context, 0, num_samples=0, reference=each.continuation, group=r.set.language
            )
            for r in records
            for place, each in enumerate(choices_of(r.kind, r.problem)[0])
        ]

    def judge(
        self, records: Sequence[ReasoningRecord], requests: Sequence[Request], completions: Completions
    ) -> Scores:
        """Score the answers; without any, for likelihoods, return the protocol only."""
        if self.protocol == "llm-adapters":
            return super().judge(records, requests, completions)
        without = any(r.kind.name == "boolq" and not r.problem.passage for r in records)
        format = f"{HARNESS}; BoolQ without its passages" if without else HARNESS
        return Scores({}, len(records), protocol=_described(format, records, requests, HARNESS_RULES))

    def measure(self, records: Sequence[ReasoningRecord], bits: Mapping[str, float]) -> Scores:
        """Return acc and acc_norm, each averaged over the sets that have it."""
        samples = [_chosen(record, bits) for record in records]
        by_set = _by_set(self.known, records, samples, {"acc": "correct", "acc_norm": "correct_per_character"})
        metrics: dict[str, float] = {}
        errors: dict[str, float] = {}
        for name in HARNESS_RULES:
            having = {each: figures for each, figures in by_set.items() if name in figures}
            mean, error = averages(having, (name,)) if having else ({}, {})
            metrics, errors = metrics | mean, errors | error
        return Scores(metrics, len(records), {"by_set": by_set, "standard_error": errors}, samples=samples)


@dataclass(frozen=True)
class ArithmeticTask(ReasoningTask):
    """MultiArith, GSM8K, AddSub, AQuA, SingleEq, SVAMP, MAWPS: word problems, answered by a number or a letter.

    The published code has no rule for MAWPS, whose column its tables have; it is read like the other numbers.
    """

    name: ClassVar[str] = "arithmetic"
    known: ClassVar[tuple[ReasoningSet, ...]] = ARITHMETIC

    max_new_tokens: int = 256


def extracted(which: ReasoningSet, completion: str) -> str | None:
    """Return the answer that the published code reads from a completion, or None if it finds none.

    It reads what follows the first `### Response:` up to the next one.
    """
    text = before_stops(completion, (RESPONSE,))
    if which.kind == "number":
        numbers = _ANY_NUMBER.findall(text.replace(",", ""))
        return numbers[-1] if numbers else None
    found = re.search("|".join(which.labels), text)
    return found[0] if found else None


def is_right(which: ReasoningSet, given: str | None, answer: str) -> bool:
    """Return whether an extracted answer is the right one; numbers may differ by 0.001."""
    if given is None:
        return False
    return abs(float(answer) - float(given)) <= _TOLERANCE if which.kind == "number" else given == answer


def _chosen(record: ReasoningRecord, bits: Mapping[str, float]) -> dict[str, Any]:
    choices, right = choices_of(record.kind, record.problem)
    # Choices with the same words have the same likelihood: what differs is rounding.
    first = [choices.index(choice) for choice in choices]
    measured = [bits[f"{record.id}#{place}"] for place in first]
    chosen = decided(choices, measured)
    sample: dict[str, Any] = {"id": record.id, "prompt": record.problem.instruction, "bits": measured}
    sample |= {"answer": chosen.plain, "reference": right, "correct": chosen.plain == right}
    if record.kind.name in NORMALISED:
        sample["correct_per_character"] = chosen.per_character == right
    return sample


def _by_set(
    known: Sequence[ReasoningSet],
    records: Sequence[ReasoningRecord],
    samples: Sequence[Mapping[str, Any]],
    fields: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return each set's figures in percent; those of chance and of the commonest answer only where there are choices.

    Args:
        fields: the field of a sample that says whether it counts, by the name of the figure; a set whose samples lack
            it has no such figure.
    """
    by_set: dict[str, dict[str, Any]] = {}
    for which in known:
        rows = [pair for pair in zip(records, samples, strict=True) if pair[0].kind.name == which.name]
        if not rows:
            continue
        n, problems = len(rows), [record.problem for record, _ in rows]
        shares = {
            name: sum(sample[field] for _, sample in rows) / n for name, field in fields.items() if field in rows[0][1]
        }
        figures: dict[str, Any] = {"name": which.label, "n": n, **{name: 100 * share for name, share in shares.items()}}
        figures["standard_error"] = {name: 100 * math.sqrt(share * (1 - share) / n) for name, share in shares.items()}
        if which.kind != "number":
            figures["chance"] = 100 * sum(1 / len(problem.choices) for problem in problems) / n
            figures["majority"] = 100 * max(Counter(problem.answer for problem in problems).values()) / n
        by_set[which.name] = figures
    return by_set


def _described(
    format: str, records: Sequence[ReasoningRecord], requests: Sequence[Request], rules: Mapping[str, Any]
) -> dict[str, Any]:
    sets = list({record.set.language: record.set for record in records}.values())
    average, error = "mean of the sets' accuracies", "binomial"
    return describe(
        format, requests, rules, "test", sets, average=average, standard_error=error, num_scored=len(records)
    )
