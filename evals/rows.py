"""The user's own rows: prompts with reference completions, scored by exact match, chrF and BLEU.

chrF1, chrF2, chrF++ and BLEU are computed over the corpus of each group of rows (a language, say), exact match over
its rows; headline figures average over groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_builders.benchmarks.languages import LANGUAGES, language_name
from data_builders.errors import UserError, require_at_least
from data_builders.row_files import iter_rows
from evals.metrics.translation import METRICS, signatures
from evals.task import Completions, Request, Scores, Task
from evals.text_scores import score_texts

FORMAT = "prompt-completion"


@dataclass(frozen=True)
class RowRecord:
    """One row of a file."""

    id: str
    prompt: str
    reference: str
    group: str


@dataclass(frozen=True)
class RowsTask(Task[RowRecord]):
    """Rows of `prompt` and `completion`, JSONL or Parquet: exact match, corpus chrF1, chrF2, chrF++ and BLEU.

    Attributes:
        group: field of the rows' `meta` to group and average figures by; empty = no groups.
        stop: stop strings; an answer ends before the first of them.
        max_new_tokens: per answer.
    """

    name: ClassVar[str] = "rows"
    version: ClassVar[int] = 1

    group: str = ""
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range."""
        require_at_least("max_new_tokens", self.max_new_tokens, 1)
        if "" in self.stop:
            raise UserError("stop: an empty string would end every answer at once; leave it out")

    def read(self, data: Path, limit: int | None) -> list[RowRecord]:
        """Read the rows; `limit` = number of rows per group."""
        records: list[RowRecord] = []
        count: Counter[str] = Counter()
        for number, row in enumerate(iter_rows(data, {"prompt": str, "completion": str}), start=1):
            meta = found if isinstance(found := row.get("meta"), dict) else {}
            if self.group and meta.get(self.group) is None:
                raise UserError(f"{data}: row {number} has no meta.{self.group}, which options.group names")
            if not row["prompt"] or not row["completion"].strip():
                raise UserError(f"{data}: row {number} has an empty prompt or completion; leave it out")
            if held := [stop for stop in self.stop if stop in row["completion"].strip()]:
                raise UserError(
                    f"{data}: the completion of row {number} holds {held[0]!r}, which ends an answer; set options.stop"
                )
            name = f"{number}" if row.get("id") is None else str(row["id"])
            group = str(meta[self.group]) if self.group else ""
            count[group] += 1
            if limit is None or count[group] <= limit:
                records.append(RowRecord(name, row["prompt"], row["completion"], group))
        if len({record.id for record in records}) < len(records):
            raise UserError(f"{data}: two rows have the same id; make them different, or leave the column out")
        if not records:
            raise UserError(f"{data}: holds no rows")
        return records

    def requests(self, records: Sequence[RowRecord]) -> list[Request]:
        """Return one request per row."""
        return [
            Request(r.id, r.prompt, self.max_new_tokens, stop=self.stop, reference=r.reference, group=r.group)
            for r in records
        ]

    def judge(self, records: Sequence[RowRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score answers, stripped of surrounding whitespace, against the rows' completions."""
        groups: dict[str, list[tuple[Request, str]]] = {}
        for request in requests:
            groups.setdefault(request.group, []).append((request, request.reference.strip()))
        by_group: dict[str, dict[str, Any]] = {}
        samples: list[dict[str, Any]] = []
        for name, rows in groups.items():
            scored = score_texts(rows, completions)
            equal = [row["answer"] == row["reference"] for row in scored.samples]
            by_group[name] = {
                "name": language_name(name) if name in LANGUAGES else name,
                "n": len(rows),
                "exact_match": 100 * float(np.mean(equal)),
                **scored.metrics,
                "standard_error": scored.standard_error,
            }
            samples += [{**row, "correct": is_equal} for row, is_equal in zip(scored.samples, equal, strict=True)]
        names = ("exact_match", *METRICS)
        return Scores(
            metrics={each: float(np.mean([scores[each] for scores in by_group.values()])) for each in names},
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
