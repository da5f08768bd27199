"""CodeXGLUE code-to-text in six languages: summarise a function in one line.

The paper specifies chrF1 and 3 shots but no prompt; here a comment line asks for the summary. chrF1 is computed over
each language's corpus; smoothed BLEU-4 is the benchmark's own metric. Headline figures average over languages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from data_builders.benchmarks.codexglue import (
    LANGUAGES,
    Function,
    find_languages,
    has_split,
    question,
    read_functions,
    split_sha256,
)
from data_builders.errors import UserError, require_at_least
from evals.metrics.smoothed_bleu import example_bleu
from evals.metrics.translation import signatures
from evals.task import Completions, RecordSet, Request, Scores, Task, averages, describe
from evals.text_scores import NUM_RESAMPLES, TextScores, score_texts

FORMAT = "code-then-summary-comment"
METRICS = ("chrf1", "smoothed_bleu4")
STOP = ("\n",)
SMOOTHED_BLEU4 = {
    "name": "smoothed BLEU-4",
    "signature": "CodeXGLUE code-to-text evaluator: lower-cased, add one above unigrams",
    "level": "mean of examples",
}


@dataclass(frozen=True)
class FunctionSet(RecordSet):
    """What the records of one language share; `skipped` maps the ids of unusable rows to the reason."""

    skipped: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class CodeRecord:
    """One function to summarise."""

    function: Function
    set: FunctionSet

    @property
    def id(self) -> str:
        """Return the function's id."""
        return self.function.id


@dataclass(frozen=True)
class CodeXGLUETask(Task[CodeRecord]):
    """CodeXGLUE code-to-text in six languages: corpus chrF1 and the official smoothed BLEU-4.

    Attributes:
        shots: worked examples: the first usable rows of valid (of train if there is no valid).
        languages: any of python, php, go, java, javascript, ruby; empty = all in the folder.
        leaks: on an unusable row (its code still contains its documentation, say): `error` or `skip`.
        max_new_tokens: per summary.
    """

    name: ClassVar[str] = "codexglue"
    version: ClassVar[int] = 1

    shots: int = 3
    languages: tuple[str, ...] = ()
    leaks: Literal["error", "skip"] = "error"
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range."""
        require_at_least("shots", self.shots, 0)
        require_at_least("max_new_tokens", self.max_new_tokens, 1)
        if self.leaks not in ("error", "skip"):
            raise UserError(f"leaks: {self.leaks!r} is not one of error, skip")
        if unknown := [language for language in self.languages if language not in LANGUAGES]:
            raise UserError(f"languages: {unknown[0]!r} is not one of {', '.join(LANGUAGES)}")

    def read(self, data: Path, limit: int | None) -> list[CodeRecord]:
        """Read the functions of each language; `limit` = number of rows per language."""
        folders = find_languages(data)
        languages = dict.fromkeys(self.languages or folders)
        if missing := [language for language in languages if language not in folders]:
            raise UserError(f"languages: {data} holds no {missing[0]}, only {', '.join(folders)}")
        return [record for each in languages for record in self._records(folders[each], each, limit)]

    def _records(self, folder: Path, language: str, limit: int | None) -> list[CodeRecord]:
        functions = list(read_functions(folder, language, "test", limit))
        skipped = {function.id: function.problem for function in functions if function.problem}
        if skipped and self.leaks == "error":
            name, problem = next(iter(skipped.items()))
            advice = "options.leaks=skip leaves them out"
            raise UserError(f"{folder}: {name} cannot be used: {problem} ({len(skipped)} such rows); {advice}")
        usable = [function for function in functions if not function.problem]
        if not usable:
            raise UserError(f"{folder}: no row of {language} can be used ({len(skipped)} skipped); get it again")
        worked, files = self._exemplars(folder, language)
        shots = tuple(f"{question(language, each.code)} {each.summary}\n\n" for each in worked)
        files = split_sha256(folder, language, "test") | files
        shared = FunctionSet(language, shots, tuple(each.id for each in worked), files, skipped)
        return [CodeRecord(function, shared) for function in usable]

    def _exemplars(self, folder: Path, language: str) -> tuple[list[Function], dict[str, str]]:
        """Return the first usable functions of valid (or train) that are not in the test split, and sha256 by file."""
        if not self.shots:
            return [], {}
        split = "valid" if has_split(folder, "valid") else "train"
        tested = {" ".join(function.code.split()) for function in read_functions(folder, language, "test")}
        worked: list[Function] = []
        for function in read_functions(folder, language, split):
            if not function.problem and " ".join(function.code.split()) not in tested:
                worked.append(function)
                if len(worked) == self.shots:
                    return worked, split_sha256(folder, language, split)
        raise UserError(f"shots: {self.shots} is more than the {len(worked)} usable rows of {split} in {folder}")

    def requests(self, records: Sequence[CodeRecord]) -> list[Request]:
        """Return one request per record; records of one language share their worked examples."""
        return [
            Request(
                r.id,
                question(r.set.language, r.function.code),
                self.max_new_tokens,
                stop=STOP,
                shots=r.set.shots,
                reference=f" {r.function.summary}",
                group=r.set.language,
            )
            for r in records
        ]

    def judge(self, records: Sequence[CodeRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score the first line of each completion against the reference."""
        by_language: dict[str, dict[str, Any]] = {}
        samples: list[dict[str, Any]] = []
        sets = {record.set.language: record.set for record in records}
        asked = zip(requests, (record.function.summary for record in records), strict=True)
        for language, group in groupby(asked, key=lambda pair: pair[0].group):
            scored = score_texts(list(group), completions)
            by_language[language], added = _with_bleu(scored, len(sets[language].skipped))
            samples += added
        metrics, standard_error = averages(by_language, METRICS)
        return Scores(
            metrics=metrics,
            n=len(records),
            breakdown={"by_language": by_language, "standard_error": standard_error},
            protocol=describe(
                FORMAT,
                requests,
                {"chrf1": signatures()["chrf1"], "smoothed_bleu4": SMOOTHED_BLEU4},
                "test",
                list(sets.values()),
                {row: problem for each in sets.values() for row, problem in each.skipped.items()},
                reference="docstring_tokens joined by spaces",
                average="mean of the languages' scores",
                standard_error=f"chrf1: bootstrap, {NUM_RESAMPLES} resamples; smoothed_bleu4: of the mean",
            ),
            samples=samples,
        )


def _with_bleu(scored: TextScores, num_skipped: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Add BLEU to one language's scores; return the scores and one sample row per function."""
    bleu = np.array([100 * example_bleu(sample["answer"], sample["reference"]) for sample in scored.samples])
    scores = {
        "n": len(bleu),
        "num_skipped": num_skipped,
        "chrf1": scored.metrics["chrf1"],
        "smoothed_bleu4": float(bleu.mean()),
        "standard_error": {
            "chrf1": scored.standard_error["chrf1"],
            "smoothed_bleu4": float(bleu.std(ddof=1) / math.sqrt(len(bleu))) if len(bleu) > 1 else 0.0,
        },
    }
    samples = zip(scored.samples, bleu, strict=True)
    return scores, [{**sample, "smoothed_bleu4": float(example)} for sample, example in samples]
