"""GSM8K and MGSM: chain of thought, and the number it ends in.

Figures of several codes stand side by side over the same completions, each named by the code that it equals
(`evals.metrics.answers`). The headline is the official one where there is one: GSM8K's `official_match`. MGSM's authors
published no code; its headline is `exact_match`, which reads numbers as each language writes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from data_builders.benchmarks.gsm8k import Problem, mgsm_languages, read_gsm8k, read_mgsm, read_mgsm_exemplars
from data_builders.errors import DataError
from evals.math_wordings import GSM8K_WORDING, MGSM_WORDINGS, Wording
from evals.metrics.answers import (
    answer,
    flexible_answer,
    gsm8k_string,
    mgsm_string,
    official_answer,
    parse_number,
    strict_answer,
)
from evals.protocol import describe, require_records
from evals.stops import before_stops
from evals.task import Completions, Request, Scores, require_completions, require_limit

EXACT_MATCH = {
    "exact_match": "ours: the number behind the answer's phrase, or else the last one; as numbers, read kindly",
}
GSM8K_METRICS = {
    "official_match": "is_correct of openai/grade-school-math: the first number behind ####; compared as strings",
    "strict_match": "lm-evaluation-harness, gsm8k, strict-match: the same without $ and a final point",
    "flexible_extract": "lm-evaluation-harness, gsm8k, flexible-extract: the last number; compared likewise",
    **EXACT_MATCH,
}
MGSM_METRICS = {
    **EXACT_MATCH,
    "strict_match": "lm-evaluation-harness, mgsm_native_cot, strict-match: the first number behind the phrase, as "
    "strings without punctuation",
    "flexible_extract": "lm-evaluation-harness, mgsm_native_cot, flexible-extract: the last number; compared likewise",
}


@dataclass(frozen=True)
class ProblemSet:
    """What the records of one language share."""

    language: str
    wording: Wording
    shots: tuple[str, ...]
    exemplars: tuple[str, ...]
    files: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class MathRecord:
    """One problem of a set."""

    problem: Problem
    set: ProblemSet

    @property
    def id(self) -> str:
        """Return the problem's id."""
        return self.problem.id

    @property
    def prompt(self) -> str:
        """Return the question, without the worked examples."""
        return self.set.wording.prompt(self.problem.question)


@dataclass(frozen=True)
class _MathTask:
    """What GSM8K and MGSM have in common."""

    name: ClassVar[str]
    version: ClassVar[int] = 2
    format: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]

    shots: int = 8
    max_new_tokens: int = 320

    def __post_init__(self) -> None:
        """Raise DataError where an option is out of its range."""
        if self.shots < 0:
            raise DataError(f"shots: {self.shots} is negative; use 0 for none")
        if self.max_new_tokens < 1:
            raise DataError(f"max_new_tokens: {self.max_new_tokens} is too small; use at least 1")

    def requests(self, records: Sequence[MathRecord]) -> list[Request]:
        """Return one request a record; those of one language share their worked examples."""
        return [
            Request(
                r.id,
                r.prompt,
                self.max_new_tokens,
                stop=r.set.wording.stop,
                shots=r.set.shots,
                reference=f" {r.problem.solution}" if r.problem.solution else "",
                group=r.set.language,
            )
            for r in records
        ]

    def score(self, records: Sequence[MathRecord], completions: Completions) -> Scores:
        """Score each completion, up to the next question, by the number it gives; average over languages."""
        require_records(records)
        requests = self.requests(records)
        require_completions(requests, completions)
        samples = [self._sample(record, completions[record.id][0]) for record in records]
        by_language: dict[str, dict[str, Any]] = {}
        sets: dict[str, ProblemSet] = {}
        for language, group in groupby(zip(records, samples, strict=True), key=lambda pair: pair[0].set.language):
            rows = list(group)
            sets[language] = rows[0][0].set
            by_language[language] = _accuracies([sample for _, sample in rows], self.metrics)
        errors = [each["standard_error"] for each in by_language.values()]
        return Scores(
            metrics={
                name: sum(each[name] for each in by_language.values()) / len(by_language) for name in self.metrics
            },
            n=len(records),
            breakdown={
                "by_language": by_language,
                "standard_error": {name: math.hypot(*(e[name] for e in errors)) / len(errors) for name in self.metrics},
            },
            protocol=describe(
                self.format,
                requests,
                self.metrics,
                {file: sha256 for each in sets.values() for file, sha256 in each.files.items()},
                "test",
                len(records[0].set.shots),
                {language: each.exemplars for language, each in sets.items()},
                stops={language: list(each.wording.stop) for language, each in sets.items()},
                average="mean of the languages' accuracies",
                standard_error="binomial",
            ),
            samples=samples,
        )

    def _sample(self, record: MathRecord, text: str) -> dict[str, Any]:
        answers = self._answers(record, before_stops(text, record.set.wording.stop))
        metrics = {name: given is not None and given == wanted for name, (given, wanted) in answers.items()}
        return {
            "id": record.id,
            "prompt": record.prompt,
            "completion": text,
            "answer": {name: given if given is None else _written(given) for name, (given, _) in answers.items()},
            "reference": record.problem.answer,
            "correct": metrics[next(iter(self.metrics))],
            "metrics": metrics,
        }

    def _answers(self, record: MathRecord, text: str) -> dict[str, tuple[str | Decimal | None, str | Decimal | None]]:
        """Return what each metric compares: what it takes for the answer of a text, and the reference."""
        raise NotImplementedError


@dataclass(frozen=True)
class GSM8KTask(_MathTask):
    """GSM8K's 1319 test problems: k-shot chain of thought, the number behind ####.

    Attributes:
        shots: worked examples, the first rows of train.jsonl.
        max_new_tokens: of an answer.
    """

    name: ClassVar[str] = "gsm8k"
    format: ClassVar[str] = "question-answer"
    metrics: ClassVar[Mapping[str, str]] = GSM8K_METRICS

    def load(self, data: Path, limit: int | None = None) -> list[MathRecord]:
        """Read the test problems and the worked examples."""
        require_limit(limit)
        problems, files = read_gsm8k(data, "test")
        worked: list[Problem] = []
        if self.shots:
            train, train_files = read_gsm8k(data, "train")
            worked, files = train[: self.shots], files | train_files
            if len(worked) < self.shots:
                raise DataError(f"shots: {self.shots} is more than the {len(worked)} rows of {data / 'train.jsonl'}")
        if overlap := {each.question for each in worked} & {each.question for each in problems}:
            raise DataError(f"{data}: the worked example {min(overlap)!r} is in the test as well; get the data again")
        shots = tuple(f"{GSM8K_WORDING.prompt(each.question)} {each.solution}\n\n" for each in worked)
        shared = ProblemSet("en", GSM8K_WORDING, shots, tuple(each.id for each in worked), files)
        return [MathRecord(problem, shared) for problem in problems[:limit]]

    def _answers(self, record: MathRecord, text: str) -> dict[str, tuple[str | Decimal | None, str | Decimal | None]]:
        solution = record.problem.solution
        strict, flexible = strict_answer(text, record.set.wording.strict), flexible_answer(text)
        return {
            "official_match": (official_answer(text), official_answer(solution)),
            "strict_match": (_if_any(strict, gsm8k_string), gsm8k_string(solution)),
            "flexible_extract": (_if_any(flexible, gsm8k_string), gsm8k_string(solution)),
            "exact_match": (answer(text, record.set.wording.phrase), parse_number(record.problem.answer)),
        }


@dataclass(frozen=True)
class MGSMTask(_MathTask):
    """MGSM's 250 problems in 11 languages: native chain of thought, the number behind "The answer is".

    Attributes:
        shots: worked examples, of the 8 a language has in the exemplars.py of MGSM's authors, beside the problems.
        languages: two-letter codes; none = all that the folder has.
        max_new_tokens: of an answer.
    """

    name: ClassVar[str] = "mgsm"
    format: ClassVar[str] = "native-cot"
    metrics: ClassVar[Mapping[str, str]] = MGSM_METRICS

    languages: tuple[str, ...] = ()

    def load(self, data: Path, limit: int | None = None) -> list[MathRecord]:
        """Read the problems of each language and its worked examples; `limit` = the first so many of each."""
        require_limit(limit)
        languages = list(dict.fromkeys(self.languages or mgsm_languages(data)))
        if unknown := [language for language in languages if language not in MGSM_WORDINGS]:
            raise DataError(f"languages: {unknown[0]!r} is not one of {', '.join(MGSM_WORDINGS)}")
        worked, worked_files = read_mgsm_exemplars(data, languages) if self.shots else ({}, {})
        records = []
        for language in languages:
            problems, files = read_mgsm(data, language)
            exemplars = worked.get(language, [])[: self.shots]
            if len(exemplars) < self.shots:
                raise DataError(f"shots: {self.shots} is more than the {len(exemplars)} worked examples in {language}")
            questions = {problem.question.strip() for problem in problems}
            wording = MGSM_WORDINGS[language]
            if any(each.question.removeprefix(wording.question).strip() in questions for each in exemplars):
                raise DataError(f"{data}: a worked example in {language} is in the test as well; get the data again")
            if not all(wording.is_label_of(each.question, each.answer) for each in exemplars):
                labels = f"{wording.question.strip()!r} and {wording.answer!r}"
                raise DataError(f"{data}: a worked example in {language} lacks its labels {labels}; get them again")
            shots = tuple(f"{each.question}\n{each.answer}\n\n" for each in exemplars)
            shared = ProblemSet(language, wording, shots, tuple(each.id for each in exemplars), files | worked_files)
            records += [MathRecord(problem, shared) for problem in problems[:limit]]
        return records

    def _answers(self, record: MathRecord, text: str) -> dict[str, tuple[str | Decimal | None, str | Decimal | None]]:
        wording, language = record.set.wording, record.set.language
        strict, flexible, number = (
            strict_answer(text, wording.strict),
            flexible_answer(text),
            parse_number(record.problem.answer),
        )
        reference = mgsm_string(_written(number)) if number is not None else None
        return {
            "exact_match": (answer(text, wording.phrase, language), number),
            "strict_match": (_if_any(strict, mgsm_string), reference),
            "flexible_extract": (_if_any(flexible, mgsm_string), reference),
        }


def _if_any(given: str | None, form: Callable[[str], str]) -> str | None:
    return None if given is None else form(given)


def _written(given: str | Decimal) -> str:
    return f"{given:f}" if isinstance(given, Decimal) else given


def _accuracies(samples: Sequence[Mapping[str, Any]], metrics: Iterable[str]) -> dict[str, Any]:
    """Return percentages and their binomial standard errors."""
    n = len(samples)
    shares = {name: sum(sample["metrics"][name] for sample in samples) / n for name in metrics}
    return {
        "n": n,
        **{name: 100 * share for name, share in shares.items()},
        "standard_error": {name: 100 * math.sqrt(share * (1 - share) / n) for name, share in shares.items()},
    }
