"""GSM8K: chain of thought, and the number it ends in; and what MGSM has in common with it.

Figures of several codes stand side by side over the same completions, each named by the code that it equals
(`evals.metrics.answers`). The headline is the official one where there is one, here `official_match`.
"""

from __future__ import annotations

import math
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
    """How a set of problems is asked: the words before a question and its answer, and those before the result.

    `question` keeps the space that follows it, where there is one. `phrase` and `strict` are regular expressions: what
    announces a result, and what lm-evaluation-harness takes for one.
    """

    question: str
    answer: str
    phrase: str
    strict: str

    @property
    def stop(self) -> tuple[str, ...]:
        """Return what ends an answer, as in the harness: the start of the next question, and ends of texts."""
        return (self.question.strip(), "</s>", "<|im_end|>")

    def prompt(self, problem: str) -> str:
        """Return a question that waits for its answer."""
        return f"{self.question}{problem}\n{self.answer}"

    def is_label_of(self, question: str, answer: str) -> bool:
        """Tell whether a worked example begins with these words, as a prompt will."""
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
    """What GSM8K and MGSM have in common."""

    version: ClassVar[int] = 2
    format: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]

    shots: int = 8
    max_new_tokens: int = 320

    def __post_init__(self) -> None:
        """Raise UserError where an option is out of its range."""
        require_at_least("shots", self.shots, 0)
        require_at_least("max_new_tokens", self.max_new_tokens, 1)

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

    def judge(self, records: Sequence[MathRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score each completion, up to the next question, by the number it gives; average over languages."""
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

    def _answers(self, record: MathRecord, text: str) -> dict[str, tuple[str | Decimal | None, str | Decimal | None]]:
        """Return what each metric compares: what it takes for the answer of a text, and the reference."""
        raise NotImplementedError


@dataclass(frozen=True)
class GSM8KTask(MathTask):
    """GSM8K's 1319 test problems: k-shot chain of thought, the number behind ####.

    Attributes:
        shots: worked examples, the first rows of train.jsonl.
        max_new_tokens: of an answer.
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
    """Return a given answer in some form."""
    return None if given is None else form(given)


def written(given: str | Decimal) -> str:
    """Return an answer without an exponent."""
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
