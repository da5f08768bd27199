"""The user's own rows: prompts or conversations with reference answers, scored as text, as numbers and by patterns.

chrF1, chrF2, chrF++ and BLEU are computed over the corpus of each group of rows (a language, say), all other metrics
over its rows; headline figures average over groups.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from data_builders.benchmarks.languages import LANGUAGES, language_name
from data_builders.errors import UserError, require_at_least
from data_builders.row_forms import FORMS, Message, check_columns
from data_builders.row_sources import find_rows
from evals.metrics.answers import answer
from evals.metrics.translation import METRICS, signatures
from evals.task import Completions, Request, Scores, Task
from evals.text_scores import score_texts

if TYPE_CHECKING:
    from data_builders.example_rows import Message

FORMAT, CHAT_FORMAT = "prompt-completion", "chat-messages"
PHRASE = "####|the answer is"
_MEANINGS = {
    "exact_match": "answers equal but for white space around them",
    "contains": "answers that hold the reference",
    "number_match": "answers whose number, behind `####` or `the answer is` or else the last one, is the reference's",
    "matches": "answers in which the pattern `matches` is found",
}


@dataclass(frozen=True)
class RowRecord:
    """One row; `messages`: the conversation that its `prompt` stands for, empty for a plain prompt."""

    id: str
    prompt: str
    reference: str
    group: str
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class RowsTask(Task[RowRecord]):
    """Rows of your own: prompts or conversations and their answers; exact match, contains, numbers, chrF, BLEU.

    The data is read as training data is: files, patterns, folders, saved datasets and those of the hub.

    Attributes:
        group: field of the rows' `meta`, or column, to group and average figures by; empty = no groups.
        stop: stop strings; an answer ends before the first of them. Null = a line break, of conversations nothing.
        max_new_tokens: per answer.
        columns: our name of a column (prompt, completion, messages, ...) -> its name in the data.
        extract: pattern (Python's `re`) that finds the answer in what is written: its first group, or all that matches.
            References in which it is found are read in the same way.
        matches: pattern that has to be found in an answer; empty = none.
    """

    name: ClassVar[str] = "rows"
    version: ClassVar[int] = 1

    group: str = ""
    stop: tuple[str, ...] | None = None
    max_new_tokens: int = 128
    columns: dict[str, str] = field(default_factory=dict)
    extract: str = ""
    matches: str = ""

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range."""
        require_at_least("max_new_tokens", self.max_new_tokens, 1)
        check_columns(self.columns)
        if "" in (self.stop or ()):
            raise UserError("stop: an empty string would end every answer at once; leave it out")
        for name in ("extract", "matches"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise UserError(f"{name}={getattr(self, name)!r} is no pattern ({error}); correct it") from None

    def data_sha256(self, data: Path) -> str:
        """Return the checksum of what is read."""
        return find_rows(str(data)).sha256

    def read(self, data: Path, limit: int | None) -> list[RowRecord]:
        """Read the rows; `limit` = number of rows per group."""
        from data_builders.example_rows import read_example_rows

        fields = [self.group] if self.group else []
        forms = [form for form in FORMS if form != ("text",)]
        table = read_example_rows(str(data), self.columns, forms, fields)
        records: list[RowRecord] = []
        count: Counter[str] = Counter()
        rows = (row for batch in table.to_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            meta = found if isinstance(found := row.get("meta"), dict) else {}
            if self.group and meta.get(self.group) is None:
                raise UserError(f"{data}: row {number} has no meta.{self.group}, which options.group names")
            name = f"{number}" if row.get("id") is None else row["id"]
            group = str(meta[self.group]) if self.group else ""
            count[group] += 1
            if limit is None or count[group] <= limit:
                records.append(self._record(row, name, group, f"{data}: row {number}"))
        if len({record.id for record in records}) < len(records):
            raise UserError(f"{data}: two rows have the same id; make them different, or leave the column out")
        return records

    def _record(self, row: dict[str, Any], name: str, group: str, where: str) -> RowRecord:
        """Return a row as a record; raises UserError if there is nothing to ask, or nothing to compare with."""
        messages: Sequence[Message] = ()
        if "messages" in row:
            messages, reference = _last_answer(json.loads(row["messages"]), where)
            prompt = plain_prompt(messages)
        else:
            prompt, reference = row["prompt"], row["completion"]
        if not prompt or reference is None or not reference.strip():
            raise UserError(f"{where} has an empty prompt or completion; leave it out")
        if held := [stop for stop in self._stops(bool(messages)) if stop in reference.strip()]:
            raise UserError(f"{where}: its completion holds {held[0]!r}, which ends an answer; set options.stop")
        return RowRecord(name, prompt, reference, group, tuple(messages))

    def _stops(self, is_chat: bool) -> tuple[str, ...]:
        if self.stop is not None:
            return self.stop
        return () if is_chat else ("\n",)

    def requests(self, records: Sequence[RowRecord]) -> list[Request]:
        """Return one request per row."""
        return [
            Request(
                r.id, r.prompt, self.max_new_tokens, stop=self._stops(bool(r.messages)), reference=r.reference,
                group=r.group, messages=r.messages,
            )
            for r in records
        ]  # fmt: skip

    def judge(self, records: Sequence[RowRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score answers, stripped of surrounding whitespace, against the rows' completions."""
        groups: dict[str, list[tuple[Request, str]]] = {}
        for request in requests:
            groups.setdefault(request.group, []).append((request, self._reference(request.reference)))
        numbers = [answer(reference, PHRASE) for rows in groups.values() for _, reference in rows]
        has_numbers = None not in numbers
        by_group: dict[str, dict[str, Any]] = {}
        samples: list[dict[str, Any]] = []
        for name, rows in groups.items():
            scored = score_texts(rows, completions, self._answer)
            marks = [self._marks(row["answer"], row["reference"], has_numbers) for row in scored.samples]
            by_group[name] = {
                "name": language_name(name) if name in LANGUAGES else name,
                "n": len(rows),
                **{metric: 100 * float(np.mean([mark[metric] for mark in marks])) for metric in marks[0]},
                **scored.metrics,
                "standard_error": scored.standard_error,
            }
            samples += [
                {**row, "correct": mark["exact_match"], **mark} for row, mark in zip(scored.samples, marks, strict=True)
            ]
        row_metrics = [metric for metric in _MEANINGS if metric in next(iter(by_group.values()))]
        names = (*row_metrics, *METRICS)
        return Scores(
            metrics={each: float(np.mean([scores[each] for scores in by_group.values()])) for each in names},
            n=len(records),
            breakdown={"by_language": by_group} if self.group else {"standard_error": by_group[""]["standard_error"]},
            protocol={
                "format": CHAT_FORMAT if any(request.messages for request in requests) else FORMAT,
                "group": self.group or None,
                "stop": list(requests[0].stop),
                "max_new_tokens": self.max_new_tokens,
                "metrics": {**{metric: _MEANINGS[metric] for metric in row_metrics}, **signatures()},
                "average": "mean of the groups' scores" if self.group else "over all rows",
                **{name: pattern for name in ("extract", "matches") if (pattern := getattr(self, name))},
            },
            samples=samples,
        )

    def _answer(self, text: str) -> str:
        """Return the answer in a text; empty if the pattern `extract` is not found."""
        if not self.extract:
            return text.strip()
        found = re.search(self.extract, text)
        return (found[1 if found.re.groups else 0] or "").strip() if found else ""

    def _reference(self, text: str) -> str:
        return self._answer(text) or text.strip()

    def _marks(self, found: str, reference: str, has_numbers: bool) -> dict[str, bool]:
        """Return what is right about an answer, by metric."""
        marks = {"exact_match": found == reference, "contains": reference in found}
        if has_numbers:
            marks["number_match"] = answer(found, PHRASE) == answer(reference, PHRASE)
        if self.matches:
            marks["matches"] = re.search(self.matches, found) is not None
        return marks


def plain_prompt(messages: Sequence[Message]) -> str:
    """Return a conversation for a model without a chat template: each message below the name of its role."""
    turns = [f"{message['role'].capitalize()}:\n{message['content']}\n\n" for message in messages]
    return "".join(turns) + "Assistant:\n" if turns else ""


def _last_answer(messages: Sequence[Message], where: str) -> tuple[Sequence[Message], str]:
    """Return the messages before the assistant's last one, and the text of that."""
    last = max((place for place, each in enumerate(messages) if each["role"] == "assistant"), default=-1)
    if last < 1:
        raise UserError(f"{where} has no message of the assistant after another to compare with; leave it out")
    return messages[:last], str(messages[last]["content"])
