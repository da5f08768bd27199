"""MGSM: GSM8K's problems in eleven languages, native chain of thought.

Its authors published no scoring code; the headline is `exact_match`, which reads numbers as each language writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from data_builders.benchmarks.gsm8k import mgsm_languages, read_mgsm, read_mgsm_exemplars
from data_builders.errors import UserError
from evals.gsm8k import ANSWER, EXACT_MATCH, MathRecord, MathTask, ProblemSet, Wording, if_any, written
from evals.metrics.answers import answer, flexible_answer, mgsm_string, parse_number, strict_answer

MGSM_METRICS = {
    **EXACT_MATCH,
    "strict_match": "lm-evaluation-harness, mgsm_native_cot, strict-match: the first number behind the phrase, as "
    "strings without punctuation",
    "flexible_extract": "lm-evaluation-harness, mgsm_native_cot, flexible-extract: the last number; compared likewise",
}
_N = r"(\-?[0-9\.\,]+)"
# The labels of MGSM's own worked examples. For Bengali, the harness matches the English phrase.
MGSM_WORDINGS: dict[str, Wording] = {
    "bn": Wording("প্রশ্ন: ", "ধাপে ধাপে উত্তর:", "উত্তর হল", f"The answer is {_N}"),
    "de": Wording("Frage: ", "Schritt-für-Schritt-Antwort:", "Die Antwort (?:lautet|ist)", f"Die Antwort lautet {_N}"),
    "en": Wording("Question: ", "Step-by-Step Answer:", ANSWER, f"The answer is {_N}"),
    "es": Wording("Pregunta: ", "Respuesta paso a paso:", "La respuesta es", f"La respuesta es {_N}"),
    "fr": Wording("Question : ", "Réponse étape par étape :", "La réponse est", f"La réponse est {_N}"),
    "ja": Wording("問題：", "ステップごとの答え：", "答えは", f"答えは{_N}です。"),
    "ru": Wording("Задача: ", "Пошаговое решение:", "Ответ —", f"Ответ — {_N}"),
    "sw": Wording("Swali: ", "Jibu la Hatua kwa Hatua:", "Jibu ni", f"Jibu ni {_N}"),
    # The lookbehind excludes the label before an answer, which ends in the same word.
    "te": Wording("ప్రశ్న: ", "దశలవారీగా సమాధానం:", "(?<!దశలవారీగా )సమాధానం", f"సమాధానం {_N}"),
    "th": Wording("โจทย์: ", "คำตอบทีละขั้นตอน:", "คำตอบคือ", f"คำตอบคือ {_N}"),
    "zh": Wording("问题：", "逐步解答：", "答案是", f"答案是 {_N}。"),
}


@dataclass(frozen=True)
class MGSMTask(MathTask):
    """MGSM's 250 problems in 11 languages: native chain of thought, the number behind "The answer is".

    Attributes:
        shots: worked examples, of the 8 per language in exemplars.py (from MGSM's authors), beside the problems.
        languages: two-letter codes; empty = all in the folder.
        max_new_tokens: per answer.
    """

    name: ClassVar[str] = "mgsm"
    format: ClassVar[str] = "native-cot"
    metrics: ClassVar[Mapping[str, str]] = MGSM_METRICS

    languages: tuple[str, ...] = ()

    def read(self, data: Path, limit: int | None) -> list[MathRecord]:
        """Read the problems and worked examples of each language; `limit` = number of problems per language."""
        languages = list(dict.fromkeys(self.languages or mgsm_languages(data)))
        if unknown := [language for language in languages if language not in MGSM_WORDINGS]:
            raise UserError(f"languages: {unknown[0]!r} is not one of {', '.join(MGSM_WORDINGS)}")
        worked, worked_files = read_mgsm_exemplars(data, languages) if self.shots else ({}, {})
        records = []
        for language in languages:
            problems, files = read_mgsm(data, language)
            exemplars = worked.get(language, [])[: self.shots]
            if len(exemplars) < self.shots:
                raise UserError(f"shots: {self.shots} is more than the {len(exemplars)} worked examples in {language}")
            questions = {problem.question.strip() for problem in problems}
            wording = MGSM_WORDINGS[language]
            if any(each.question.removeprefix(wording.question).strip() in questions for each in exemplars):
                raise UserError(f"{data}: a worked example in {language} is in the test as well; get the data again")
            if not all(wording.is_label_of(each.question, each.answer) for each in exemplars):
                labels = f"{wording.question.strip()!r} and {wording.answer!r}"
                raise UserError(f"{data}: a worked example in {language} lacks its labels {labels}; get them again")
            shots = tuple(f"{each.question}\n{each.answer}\n\n" for each in exemplars)
            shared = ProblemSet(language, shots, tuple(each.id for each in exemplars), files | worked_files, wording)
            records += [MathRecord(problem, shared) for problem in problems[:limit]]
        return records

    def _answers(self, record: MathRecord, text: str) -> dict[str, tuple[str | Decimal | None, str | Decimal | None]]:
        wording, language = record.set.wording, record.set.language
        strict, flexible, number = (
            strict_answer(text, wording.strict),
            flexible_answer(text),
            parse_number(record.problem.answer),
        )
        reference = mgsm_string(written(number)) if number is not None else None
        return {
            "exact_match": (answer(text, wording.phrase, language), number),
            "strict_match": (if_any(strict, mgsm_string), reference),
            "flexible_extract": (if_any(flexible, mgsm_string), reference),
        }
