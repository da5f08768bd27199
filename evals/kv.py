"""Key-value arithmetic: KV-SUBS, NUM-MATH, and KV-MATH in its stepwise and its direct protocol.

A record makes three requests. `<id>/substitute` serves KV-SUBS and stepwise KV-MATH: the model writes the numbers and,
after `=`, their value. `<id>/solve_numbers` is NUM-MATH; `<id>/solve_keys` is direct KV-MATH: only the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from data_builders.errors import UserError
from data_builders.kv.config import STRATA
from data_builders.kv.text import (
    FORMAT,
    TEMPLATES,
    NumberFormat,
    parse_expression,
    parse_substitution,
    parse_value,
)
from data_builders.manifest import MANIFEST_NAME, read_manifest, verify_files
from data_builders.row_files import Fields, iter_rows
from evals.task import Completions, Request, Scores, Task

METRICS = ("kv_subs", "num_math", "kv_math", "kv_math_direct")
HEADLINE_STRATUM = "held_out"
_KINDS = {"substitute": "stepwise", "solve_numbers": "num_math", "solve_keys": "direct"}
_TOKEN_MARGIN = 2
AUGS = ("1", "2", "1+2")
_TEST_FILE = "test.parquet"
_FIELDS: Fields = {
    **dict.fromkeys(("id", "keys", "numbers", "value", "stratum"), str),
    **dict.fromkeys(("num_operands", "num_held_in"), int),
}


@dataclass(frozen=True)
class KVRecord:
    """One test expression: over keys, over numbers, and its value in canonical and in written form."""

    id: str
    keys: str
    numbers: str
    value: str
    written_value: str
    num_operands: int
    num_held_in: int
    stratum: str
    spaces_are_free: bool
    augs: str = ""
    """The m_As that know these keys, if the keys are split between two: `1`, `2` or `1+2`."""

    def prompt(self, request: str) -> str:
        """Return the prompt of one of the record's three requests."""
        return TEMPLATES[_KINDS[request]].prompt.format(keys=self.keys, numbers=self.numbers)

    def reference(self, request: str) -> str:
        """Return the completion that a perfect model writes."""
        return TEMPLATES[_KINDS[request]].completion.format(numbers=self.numbers, value=self.written_value)

    def max_new_tokens(self, request: str) -> int:
        """Return a token limit that the reference fits in with any tokenizer.

        Our own tokenizers need at most one token per character other than spaces. Others need at most one per
        character, spaces included (some make the space before a number a token of its own).
        """
        reference = self.reference(request)
        return len(reference.replace(" ", "") if self.spaces_are_free else reference) + _TOKEN_MARGIN


@dataclass(frozen=True)
class KVTask(Task[KVRecord]):
    """The key-value evaluation over the test set of a `calmctl data kv` folder."""

    name: ClassVar[str] = "kv"
    version: ClassVar[int] = 1

    def read(self, data: Path, limit: int | None) -> list[KVRecord]:
        """Read the test set; any prefix of it is balanced over strata and operand counts."""
        data = data.parent if data.is_file() and data.name == _TEST_FILE else data
        manifest = read_manifest(data)
        if manifest.get("format") != FORMAT:
            raise UserError(
                f"{data}: data format {manifest.get('format')!r} is not {FORMAT!r};"
                " name a folder made by `calmctl data kv`"
            )
        try:
            verify_files(data, {"files": {_TEST_FILE: manifest["files"][_TEST_FILE]}})
            numbers = NumberFormat(**manifest["number_format"])
            tokenizer = manifest["tokenizer"]
            spaces_are_free = tokenizer["folder"] is not None  # set for our own tokenizers only
            groups: Fields = {"augs": str} if len(tokenizer.get("augs", ())) > 1 else {}
            fields = {**_FIELDS, **groups}
        except (KeyError, TypeError) as error:
            raise UserError(f"{data / MANIFEST_NAME}: damaged ({error}); build the data again") from None
        rows = islice(iter_rows(data / _TEST_FILE, fields), limit)
        return [
            KVRecord(
                **{name: row[name] for name in fields},
                written_value=numbers.result(int(row["value"])),
                spaces_are_free=spaces_are_free,
            )
            for row in rows
        ]

    def requests(self, records: Sequence[KVRecord]) -> list[Request]:
        """Return three requests per record."""
        return [
            Request(f"{record.id}/{request}", record.prompt(request), record.max_new_tokens(request))
            for record in records
            for request in _KINDS
        ]

    def judge(self, records: Sequence[KVRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score by exact match on parsed numbers and signs; the headline is over held-out keys only."""
        headline = [record for record in records if record.stratum == HEADLINE_STRATUM]
        if not headline:
            raise UserError(f"records: none is in stratum {HEADLINE_STRATUM!r}; score at least one that is")
        grouped = any(record.augs for record in headline)
        correct: dict[str, dict[str, bool]] = {}
        samples: list[dict[str, Any]] = []
        for record in records:
            correct[record.id] = {}
            for request in _KINDS:
                text = completions[f"{record.id}/{request}"][0]
                outcome = _judge(record, request, text)
                correct[record.id] |= outcome
                samples.append(_sample(record, request, text, outcome))
        return Scores(
            metrics=_percentages(headline, correct),
            n=len(headline),
            breakdown={
                "by_num_operands": _by(headline, correct, lambda record: record.num_operands),
                "by_stratum": _by(records, correct, lambda record: STRATA.index(record.stratum), STRATA),
                "by_num_held_in": _by(records, correct, lambda record: record.num_held_in),
                **(
                    {"by_augs": _by(headline, correct, lambda record: AUGS.index(record.augs), AUGS)} if grouped else {}
                ),
            },
            protocol={
                "format": FORMAT,
                "shots": 0,
                "metric": "exact match on parsed integers and operators, percent",
                "stratum": HEADLINE_STRATUM,
                "kv_math": "stepwise: the value after the substituted numbers",
                "kv_math_direct": "direct: the value at once",
            },
            samples=samples,
        )


def _judge(record: KVRecord, request: str, text: str) -> dict[str, bool]:
    """Return for each metric that a request serves whether the completion is correct."""
    if request == "substitute":
        expression, value = parse_substitution(text)
        return {"kv_subs": expression == parse_expression(record.numbers), "kv_math": value == record.value}
    metric = {"solve_numbers": "num_math", "solve_keys": "kv_math_direct"}[request]
    return {metric: parse_value(text) == record.value}


def _sample(record: KVRecord, request: str, text: str, outcome: dict[str, bool]) -> dict[str, Any]:
    return {
        "id": f"{record.id}/{request}",
        "prompt": record.prompt(request),
        "completion": text,
        "reference": record.reference(request),
        "correct": all(outcome.values()),
        "metrics": outcome,
        "num_operands": record.num_operands,
        "num_held_in": record.num_held_in,
        "stratum": record.stratum,
    }


def _percentages(records: Sequence[KVRecord], correct: Mapping[str, Mapping[str, bool]]) -> dict[str, float]:
    return {metric: 100.0 * sum(correct[record.id][metric] for record in records) / len(records) for metric in METRICS}


def _by(
    records: Iterable[KVRecord],
    correct: Mapping[str, Mapping[str, bool]],
    group: Callable[[KVRecord], int],
    labels: Sequence[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the metrics of each group that has records, in the groups' order."""
    groups: dict[int, list[KVRecord]] = {}
    for record in records:
        groups.setdefault(group(record), []).append(record)
    return {
        labels[key] if labels else str(key): {"n": len(groups[key]), **_percentages(groups[key], correct)}
        for key in sorted(groups)
    }
