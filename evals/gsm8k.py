"""GSM8K and MGSM: chain of thought, and the number it ends in.

Three extractions of the same completions stand side by side. `exact_match`, the headline, takes the number behind the
answer's phrase, or else the last one, reads it in the language's notation and compares numbers. `strict_match` and
`flexible_extract` compare strings, as harnesses do: the first number behind the phrase, the last number anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from data_builders.errors import DataError
from data_builders.gsm8k import Problem, mgsm_languages, read_gsm8k, read_mgsm, read_mgsm_exemplars
from evals.metrics.answers import GSM8K_PHRASE, answer, flexible_answer, parse_number, strict_answer
from evals.protocol import describe, require_records
from evals.stops import before_stops
from evals.task import Completions, Request, Scores, require_completions, require_limit

METRICS = ("exact_match", "strict_match", "flexible_extract")
DESCRIPTIONS = {
    "exact_match": "the last number of the line after the answer's phrase, or else of the text; as numbers, percent",
    "strict_match": "the first number behind the answer's phrase; compared as strings without , $ and a final .",
    "flexible_extract": r"the last match of (-?[$0-9.,]{2,})|(-?[0-9]+); compared as strings likewise",
}


@dataclass(frozen=True)
class Wording:
    """How a set of problems is asked: the words before a question and its answer, and those before the result.

    `question` keeps the space that follows it, where there is one; `phrase` is a regular expression.
    """

    question: str
    answer: str
    phrase: str

    @property
    def stop(self) -> tuple[str, ...]:
        """Return what ends an answer: the start of the next question."""
        return (self.question.strip(),)

    def prompt(self, problem: str) -> str:
        """Return a question that waits for its answer."""
        return f"{self.question}{problem}\n{self.answer}"

    def is_label_of(self, question: str, answer: str) -> bool:
        """Tell whether a worked example begins with these words, as a prompt will."""
        return question.startswith(self.question.strip()) and answer.startswith(self.answer)


GSM8K_WORDING = Wording("Question: ", "Answer:", GSM8K_PHRASE)
# The words of MGSM's own worked examples.
MGSM_WORDINGS: dict[str, Wording] = {
    "bn": Wording("প্রশ্ন: ", "ধাপে ধাপে উত্তর:", "উত্তর হল"),
    "de": Wording("Frage: ", "Schritt-für-Schritt-Antwort:", "Die Antwort (?:lautet|ist)"),
    "en": Wording("Question: ", "Step-by-Step Answer:", "The answer is"),
    "es": Wording("Pregunta: ", "Respuesta paso a paso:", "La respuesta es"),
    "fr": Wording("Question : ", "Réponse étape par étape :", "La réponse est"),
    "ja": Wording("問題：", "ステップごとの答え：", "答えは"),
    "ru": Wording("Задача: ", "Пошаговое решение:", "Ответ —"),
    "sw": Wording("Swali: ", "Jibu la Hatua kwa Hatua:", "Jibu ni"),
    "te": Wording("ప్రశ్న: ", "దశలవారీగా సమాధానం:", "సమాధానం"),
    "th": Wording("โจทย์: ", "คำตอบทีละขั้นตอน:", "คำตอบคือ"),
    "zh": Wording("问题：", "逐步解答：", "答案是"),
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
    version: ClassVar[int] = 1
    format: ClassVar[str]

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
            Request(r.id, r.prompt, self.max_new_tokens, stop=r.set.wording.stop, shots=r.set.shots) for r in records
        ]

    def score(self, records: Sequence[MathRecord], completions: Completions) -> Scores:
        """Score each completion, up to the next question, by the number it gives; average over languages."""
        require_records(records)
        requests = self.requests(records)
        require_completions(requests, completions)
        samples = [_sample(record, completions[record.id][0]) for record in records]
        by_language: dict[str, dict[str, Any]] = {}
        sets: dict[str, ProblemSet] = {}
        for language, group in groupby(zip(records, samples, strict=True), key=lambda pair: pair[0].set.language):
            rows = list(group)
            sets[language] = rows[0][0].set
            by_language[language] = _accuracies([sample for _, sample in rows])
        errors = [each["standard_error"] for each in by_language.values()]
        return Scores(
            metrics={name: sum(each[name] for each in by_language.values()) / len(by_language) for name in METRICS},
            n=len(records),
            breakdown={
                "by_language": by_language,
                "standard_error": {name: math.hypot(*(e[name] for e in errors)) / len(errors) for name in METRICS},
            },
            protocol=describe(
                self.format,
                requests,
                DESCRIPTIONS,
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


@dataclass(frozen=True)
class GSM8KTask(_MathTask):
    """GSM8K's 1319 test problems: k-shot chain of thought, the number behind ####.

    Attributes:
        shots: worked examples, the first rows of train.jsonl.
        max_new_tokens: of an answer.
    """

    name: ClassVar[str] = "gsm8k"
    format: ClassVar[str] = "question-answer"

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


def _sample(record: MathRecord, text: str) -> dict[str, Any]:
    wording, language = record.set.wording, record.set.language
    written = before_stops(text, wording.stop)
    answers = {
        "exact_match": answer(written, wording.phrase, language),
        "strict_match": strict_answer(written, wording.phrase),
        "flexible_extract": flexible_answer(written),
    }
    as_number = parse_number(record.problem.answer)
    as_string = record.problem.answer.replace(",", "").replace("$", "").removesuffix(".")
    metrics = {
        name: given is not None and given == (as_number if name == "exact_match" else as_string)
        for name, given in answers.items()
    }
    return {
        "id": record.id,
        "prompt": record.prompt,
        "completion": text,
        "answer": {name: None if given is None else str(given) for name, given in answers.items()},
        "reference": record.problem.answer,
        "correct": metrics["exact_match"],
        "metrics": metrics,
    }


def _accuracies(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return percentages and their binomial standard errors."""
    n = len(samples)
    shares = {name: sum(sample["metrics"][name] for sample in samples) / n for name in METRICS}
    return {
        "n": n,
        **{name: 100 * share for name, share in shares.items()},
        "standard_error": {name: 100 * math.sqrt(share * (1 - share) / n) for name, share in shares.items()},
    }
