"""GSM8K: few-shot chain of thought, scored by the final number, and the base class that MGSM shares.

The same completions are scored as several published evaluation codes score them, one metric per code
(`evals.metrics.answers`). The headline is the official metric if there is one, here `official_match`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from data_builders.benchmarks.gsm8k import Problem, read_gsm8k
from data_builders.errors import UserError, require_at_least
from evals.metrics.answers import (
    GSM8K_PATTERN,
    answer,
    flexible_answer,
    gsm8k_string,
    official_answer,
    parse_number,
    strict_answer,
)
from evals.task import (
    Completions,
    RecordSet,
    Request,
    Scores,
    Task,
    averages,
    before_stops,
    describe,
)

EXACT_MATCH = {
    "exact_match": "ours: the number behind the answer's phrase, or else the last one; as numbers, read kindly",
}
GSM8K_METRICS = {
    "official_match": "is_correct of openai/grade-school-math: the first number behind ####; compared as strings",
    "strict_match": "lm-evaluation-harness, gsm8k, strict-match: the same without $ and a final point",
    "flexible_extract": "lm-evaluation-harness, gsm8k, flexible-extract: the last number; compared likewise",
    **EXACT_MATCH,
}


@dataclass(frozen=True)
class Wording:
    """The labels before a question and its answer, and regular expressions that find the result.

    `question` includes the space after the label, if any. `phrase` matches the words that announce a result; `strict`
    is the pattern of lm-evaluation-harness's strict-match.
    """

    question: str
    answer: str
    phrase: str
    strict: str

    @property
    def stop(self) -> tuple[str, ...]:
        """Return the harness's stop strings: the label of the next question, and end-of-text markers."""
        return (self.question.strip(), "</s>", "<|im_end|>")

    def prompt(self, problem: str) -> str:
        """Return a problem with both labels, ready for its answer."""
        return f"{self.question}{problem}\n{self.answer}"

    def is_label_of(self, question: str, answer: str) -> bool:
        """Return whether a worked example starts with the same labels as the prompts."""
        return question.startswith(self.question.strip()) and answer.startswith(self.answer)


ANSWER = "The (?:final |correct )?answer is"
GSM8K_WORDING = Wording("Question: ", "Answer:", f"####|{ANSWER}", GSM8K_PATTERN)


@dataclass(frozen=True)
class ProblemSet(RecordSet):
    """What the records of one language share."""

    wording: Wording


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
class MathTask(Task[MathRecord]):
    """Base of GSM8K and MGSM."""

    version: ClassVar[int] = 2
    format: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]

    shots: int = 8
    max_new_tokens: int = 320

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range."""
        require_at_least("shots", self.shots, 0)
        require_at_least("max_new_tokens", self.max_new_tokens, 1)

    def requests(self, records: Sequence[MathRecord]) -> list[Request]:
        """Return one request per record; records of one language share their worked examples."""
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

    def judge(self, records: Sequence[MathRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score each completion, cut at the first stop string, by its answer; average over languages."""
        samples = [self._sample(record, completions[record.id][0]) for record in records]
        by_language = {
            language: _accuracies([sample for _, sample in rows], self.metrics)
            for language, rows in groupby(zip(records, samples, strict=True), key=lambda pair: pair[0].set.language)
        }
        sets = {record.set.language: record.set for record in records}
        metrics, standard_error = averages(by_language, self.metrics)
        return Scores(
            metrics=metrics,
            n=len(records),
            breakdown={"by_language": by_language, "standard_error": standard_error},
            protocol=describe(
                self.format,
                requests,
                self.metrics,
                "test",
                list(sets.values()),
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
            "answer": {name: given if given is None else written(given) for name, (given, _) in answers.items()},
            "reference": record.problem.answer,
            "correct": metrics[next(iter(self.metrics))],
            "metrics": metrics,
        }

    @abstractmethod
    def _answers(self, record: MathRecord, text: str) -> dict[str, tuple[str | Decimal | None, str | Decimal | None]]:
        """Return for each metric the answer it extracts from a text and the reference it compares it with."""


@dataclass(frozen=True)
class GSM8KTask(MathTask):
    """GSM8K's 1319 test problems: k-shot chain of thought, the number behind ####.

    Attributes:
        shots: worked examples, the first rows of train.jsonl.
        max_new_tokens: per answer.
    """

    name: ClassVar[str] = "gsm8k"
    format: ClassVar[str] = "question-answer"
    metrics: ClassVar[Mapping[str, str]] = GSM8K_METRICS

    def read(self, data: Path, limit: int | None) -> list[MathRecord]:
        """Read the test problems and the worked examples."""
        problems, files = read_gsm8k(data, "test")
        worked: list[Problem] = []
        if self.shots:
            train, train_files = read_gsm8k(data, "train")
            worked, files = train[: self.shots], files | train_files
            if len(worked) < self.shots:
                raise UserError(f"shots: {self.shots} is more than the {len(worked)} rows of {data / 'train.jsonl'}")
        if overlap := {each.question for each in worked} & {each.question for each in problems}:
            raise UserError(f"{data}: the worked example {min(overlap)!r} is in the test as well; get the data again")
        shots = tuple(f"{GSM8K_WORDING.prompt(each.question)} {each.solution}\n\n" for each in worked)
        shared = ProblemSet("en", shots, tuple(each.id for each in worked), files, GSM8K_WORDING)
        return [MathRecord(problem, shared) for problem in problems[:limit]]

    def _answers(self, record: MathRecord, text: str) -> dict[str, tuple[str | Decimal | None, str | Decimal | None]]:
        solution = record.problem.solution
        strict, flexible = strict_answer(text, record.set.wording.strict), flexible_answer(text)
        return {
            "official_match": (official_answer(text), official_answer(solution)),
            "strict_match": (if_any(strict, gsm8k_string), gsm8k_string(solution)),
            "flexible_extract": (if_any(flexible, gsm8k_string), gsm8k_string(solution)),
            "exact_match": (answer(text, record.set.wording.phrase), parse_number(record.problem.answer)),
        }


def if_any(given: str | None, form: Callable[[str], str]) -> str | None:
    """Apply `form` to an answer; return None if there is none."""
    return None if given is None else form(given)


def written(given: str | Decimal) -> str:
    """Return an answer as text, decimals without an exponent."""
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
