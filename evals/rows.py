"""Rows of the user's own: prompts with the completions that are wanted, generated and compared.

chrF1, chrF2, chrF++ and BLEU are over the corpus of a group of rows (their languages, say), exact match is over its
rows; headlines are averages over groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_builders.benchmarks.flores_languages import LANGUAGES, language_name
from data_builders.errors import DataError
from data_builders.rows import iter_rows
from evals.metrics.translation import (
    METRICS,
    bootstrap_scores,
    corpus_scores,
    sentence_chrf1,
    sentence_statistics,
    signatures,
)
from evals.protocol import require_records
from evals.stops import before_stops
from evals.task import Completions, Request, Scores, require_completions, require_limit

FORMAT = "prompt-completion"
NUM_RESAMPLES = 200


@dataclass(frozen=True)
class RowRecord:
    """One row of a file."""

    id: str
    prompt: str
    reference: str
    group: str


@dataclass(frozen=True)
class RowsTask:
    """Rows of `prompt` and `completion`, JSONL or Parquet: exact match, corpus chrF1, chrF2, chrF++ and BLEU.

    Attributes:
        group: a field of the rows' `meta` by which figures are broken down, and averaged; empty = none.
        stop: an answer ends before the first of these.
        max_new_tokens: of an answer.
    """

    name: ClassVar[str] = "rows"
    version: ClassVar[int] = 1

    group: str = ""
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        """Raise DataError where an option is out of its range."""
        if self.max_new_tokens < 1:
            raise DataError(f"max_new_tokens: {self.max_new_tokens} is too small; use at least 1")
        if "" in self.stop:
            raise DataError("stop: an empty string would end every answer at once; leave it out")

    def load(self, data: Path, limit: int | None = None) -> list[RowRecord]:
        """Read the rows; `limit` = the first so many of each group."""
        require_limit(limit)
        records: list[RowRecord] = []
        count: Counter[str] = Counter()
        for number, row in enumerate(iter_rows(data, {"prompt": str, "completion": str}), start=1):
            meta = found if isinstance(found := row.get("meta"), dict) else {}
            if self.group and meta.get(self.group) is None:
                raise DataError(f"{data}: row {number} has no meta.{self.group}, which options.group names")
            if not row["prompt"] or not row["completion"].strip():
                raise DataError(f"{data}: row {number} has an empty prompt or completion; leave it out")
            if held := [stop for stop in self.stop if stop in row["completion"].strip()]:
                raise DataError(
                    f"{data}: the completion of row {number} holds {held[0]!r}, which ends an answer; set options.stop"
                )
            name = f"{number}" if row.get("id") is None else str(row["id"])
            group = str(meta[self.group]) if self.group else ""
            count[group] += 1
            if limit is None or count[group] <= limit:
                records.append(RowRecord(name, row["prompt"], row["completion"], group))
        if len({record.id for record in records}) < len(records):
            raise DataError(f"{data}: two rows have the same id; make them different, or leave the column out")
        if not records:
            raise DataError(f"{data}: holds no rows")
        return records

    def requests(self, records: Sequence[RowRecord]) -> list[Request]:
        """Return one request a row."""
        return [
            Request(r.id, r.prompt, self.max_new_tokens, stop=self.stop, reference=r.reference, group=r.group)
            for r in records
        ]

    def score(self, records: Sequence[RowRecord], completions: Completions) -> Scores:
        """Score answers, without white space around them, against the completions of the rows."""
        require_records(records)
        require_completions(self.requests(records), completions)
        groups: dict[str, list[RowRecord]] = {}
        for record in records:
            groups.setdefault(record.group, []).append(record)
        by_group: dict[str, dict[str, Any]] = {}
        samples: list[dict[str, Any]] = []
        for name, rows in groups.items():
            by_group[name], added = self._score_group(name, rows, completions)
            samples += added
        names = ("exact_match", *METRICS)
        metrics = {each: float(np.mean([scores[each] for scores in by_group.values()])) for each in names}
        return Scores(
            metrics=metrics,
            n=len(records),
            breakdown={"by_language": by_group} if self.group else {"standard_error": by_group[""]["standard_error"]},
            protocol={
                "format": FORMAT,
                "group": self.group or None,
                "stop": list(self.stop),
                "max_new_tokens": self.max_new_tokens,
                "metrics": {"exact_match": "answers equal but for white space around them", **signatures()},
                "average": "mean of the groups' scores" if self.group else "over all rows",
            },
            samples=samples,
        )

    def _score_group(
        self, name: str, rows: Sequence[RowRecord], completions: Completions
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        texts = [completions[row.id][0] for row in rows]
        answers = [before_stops(text, self.stop).strip() for text in texts]
        references = [row.reference.strip() for row in rows]
        statistics = sentence_statistics(answers, references)
        equal = [answer == reference for answer, reference in zip(answers, references, strict=True)]
        resampled = bootstrap_scores(statistics, NUM_RESAMPLES)
        scores: dict[str, Any] = {
            "name": language_name(name) if name in LANGUAGES else name,
            "n": len(rows),
            "exact_match": 100 * float(np.mean(equal)),
            **corpus_scores(statistics),
            "standard_error": {each: float(values.std(ddof=1)) for each, values in resampled.items()},
        }
        samples = [
            {
                "id": row.id,
                "prompt": row.prompt,
                "completion": text,
                "answer": answer,
                "reference": row.reference.strip(),
                "correct": is_equal,
                "sentence_chrf1": chrf1,
            }
            for row, text, answer, is_equal, chrf1 in zip(
                rows, texts, answers, equal, sentence_chrf1(statistics), strict=True
            )
        ]
        return scores, samples
