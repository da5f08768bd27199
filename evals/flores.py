"""FLORES-200 translation between English and the other languages: few-shot from dev, scored on devtest.

The prompt is that of the harnesses' translation tasks, `{Source} sentence: ...` and `{Target} sentence:`, after the
first rows of dev. Metrics are computed over each language's corpus; headline figures average over languages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from data_builders.benchmarks.flores import ROWS, Flores, read_flores
from data_builders.benchmarks.languages import ENGLISH, full_code, language_name
from data_builders.errors import UserError, require_at_least
from data_builders.ntl.translation_text import FORMAT, STOP, question, worked_pair
from data_builders.values import read_json
from evals.metrics.translation import METRICS, signatures
from evals.task import Completions, RecordSet, Request, Scores, Task, describe
from evals.text_scores import NUM_RESAMPLES, TextScores, score_texts

HEADLINE = "chrf1"
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class LanguagePair(RecordSet):
    """What the records of one language share."""

    source: str
    target: str
    release: str


@dataclass(frozen=True)
class FloresRecord:
    """One sentence to translate; `id` is `<language>/<row of devtest>`."""

    id: str
    set: LanguagePair
    sentence: str
    reference: str


@dataclass(frozen=True)
class FloresTask(Task[FloresRecord]):
    """Translation of FLORES-200 between English and 203 languages: corpus chrF1, chrF2, chrF++ and BLEU.

    Attributes:
        shots: worked examples, the first rows of dev.
        languages: codes of the languages paired with English, such as fra_Latn (or fra, if it has only one script);
            empty = all.
        direction: `xx-en` or `en-xx`.
        against: metrics.json of another run, or its folder: count the languages in which this run is better. The other
            run must have scored the same rows of all these languages, in the same direction.
        first_row: first row of devtest, counted from 0; a limit counts from there. With it, settings can be tuned on
            some rows and figures reported on others.
        max_new_tokens: per translation.
    """

    name: ClassVar[str] = "flores"
    version: ClassVar[int] = 1

    shots: int = 5
    languages: tuple[str, ...] = ()
    direction: Literal["xx-en", "en-xx"] = "xx-en"
    against: str | None = None
    first_row: int = 0
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        """Complete the language codes; raise UserError if an option is out of range."""
        if not 0 <= self.shots <= ROWS["dev"]:
            raise UserError(f"shots: {self.shots} is not within 0 and {ROWS['dev']}, the rows of dev")
        if self.direction not in ("xx-en", "en-xx"):
            raise UserError(f"direction: {self.direction!r} is not one of xx-en, en-xx")
        if not 0 <= self.first_row < ROWS["devtest"]:
            raise UserError(
                f"first_row: {self.first_row} is not within 0 and {ROWS['devtest'] - 1}, the rows of devtest"
            )
        require_at_least("max_new_tokens", self.max_new_tokens, 1)
        object.__setattr__(self, "languages", tuple(map(full_code, self.languages)))

    def read(self, data: Path, limit: int | None) -> list[FloresRecord]:
        """Read the sentences of each language; `limit` = number of rows per language, from `first_row` on."""
        splits = ("dev", "devtest") if self.shots else ("devtest",)
        flores = read_flores(data, self.languages, always=(ENGLISH,), splits=splits)
        # English is paired with itself only if it is named explicitly.
        languages = dict.fromkeys(self.languages or [code for code in flores.sentences if code != ENGLISH])
        records = [record for code in languages for record in self._records(flores, code, limit)]
        if self.against is not None:
            read_other(self, Path(self.against), records)  # fail before generation, not after it
        return records

    def _records(self, flores: Flores, language: str, limit: int | None) -> list[FloresRecord]:
        source, target = (language, ENGLISH) if self.direction == "xx-en" else (ENGLISH, language)
        sources, targets = flores.sentences[source], flores.sentences[target]
        worked = list(zip(sources["dev"], targets["dev"], strict=True))[: self.shots] if self.shots else []
        if overlap := {sentence for sentence, _ in worked} & set(sources["devtest"]):
            raise UserError(f"{source}: the worked example {min(overlap)!r} is in devtest as well; get the data again")
        pair = LanguagePair(
            language,
            tuple(worked_pair(source, target, *sides) for sides in worked),
            tuple(f"{language}/dev/{row}" for row in range(self.shots)),
            flores.files,
            source,
            target,
            flores.release,
        )
        rows = list(zip(sources["devtest"], targets["devtest"], strict=True))[self.first_row :][:limit]
        return [FloresRecord(f"{language}/{row}", pair, *sides) for row, sides in enumerate(rows, self.first_row)]

    def requests(self, records: Sequence[FloresRecord]) -> list[Request]:
        """Return one request per record; records of one language share their worked examples."""
        return [
            Request(
                r.id,
                question(r.set.source, r.set.target, r.sentence),
                self.max_new_tokens,
                stop=STOP,
                shots=r.set.shots,
                reference=f" {r.reference}",
                group=r.set.language,
            )
            for r in records
        ]

    def judge(self, records: Sequence[FloresRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Score the first line of each completion against the reference, over each language's corpus."""
        by_language: dict[str, dict[str, Any]] = {}
        scored: list[TextScores] = []
        asked = zip(requests, (record.reference for record in records), strict=True)
        for language, group in groupby(asked, key=lambda pair: pair[0].group):
            scored.append(score_texts(list(group), completions))
            by_language[language] = {
                "name": language_name(language),
                "n": len(scored[-1].answers),
                **scored[-1].metrics,
                "standard_error": scored[-1].standard_error,
            }
        metrics = {name: float(np.mean([scores[name] for scores in by_language.values()])) for name in METRICS}
        breakdown: dict[str, Any] = {"by_language": by_language, "standard_error": _average_errors(scored)}
        if self.against is not None:
            theirs = read_other(self, Path(self.against), records)
            breakdown["against"] = compare(by_language, theirs, self.against)
            metrics["languages_above"] = float(len(breakdown["against"]["above"]))
        pairs = {record.set.language: record.set for record in records}
        began: dict[str, Any] = {"first_row": self.first_row} if self.first_row else {}  # older results lack it
        return Scores(
            metrics=metrics,
            n=len(records),
            breakdown=breakdown,
            protocol=describe(
                FORMAT,
                requests,
                signatures(),
                "devtest",
                list(pairs.values()),
                release=records[0].set.release,
                direction=self.direction,
                **began,
                languages=list(pairs),
                average="mean of the languages' corpus scores",
                standard_error=f"bootstrap over sentences, {NUM_RESAMPLES} resamples, the same for every language",
            ),
            samples=[sample for each in scored for sample in each.samples],
        )


def read_other(task: FloresTask, path: Path, records: Sequence[FloresRecord]) -> dict[str, float]:
    """Return another run's headline score by language.

    Raises:
        UserError: the other run is not comparable: another task, direction or release, missing languages, other rows.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    try:
        other = read_json(file)
        name, protocol = other["task"], other["protocol"]
        about = protocol.get("direction"), protocol.get("release")
        first_row, part = protocol.get("first_row", 0), protocol.get("subset") or {"records": 0, "of": 0}
        is_part = part["records"] != part["of"]
        rows = {language: scores["n"] for language, scores in other["breakdown"]["by_language"].items()}
        theirs = {language: float(scores[HEADLINE]) for language, scores in other["breakdown"]["by_language"].items()}
    except UserError as error:
        raise UserError(f"against: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"no metrics of a flores run ({error})"
        raise UserError(f"against: {file}: {problem}; name a finished run of flores, or its {METRICS_FILE}") from None
    release = records[0].set.release
    if name != task.name or about != (task.direction, release):
        what = " ".join(str(part) for part in (name, *about) if part)
        raise UserError(
            f"against: {file} is a run of {what}, not of flores {task.direction} {release}; name one that is"
        )
    if is_part:
        raise UserError(
            f"against: {file} scored {part['records']} of {part['of']} records (ids=given); name a whole run"
        )
    ours = Counter(record.set.language for record in records)
    if missing := [language for language in ours if language not in theirs]:
        raise UserError(
            f"against: {file} has no {missing[0]} ({len(missing)} of {len(ours)} languages are missing); "
            "name a run over all of them, or name fewer languages"
        )
    if other_rows := [language for language in ours if rows[language] != ours[language]]:
        language = other_rows[0]
        raise UserError(
            f"against: {file} scored {rows[language]} rows of {language}, and this run is over {ours[language]}; "
            "compare runs with the same limit"
        )
    if first_row != task.first_row:
        raise UserError(
            f"against: {file} begins with row {first_row} of devtest, and this run with {task.first_row}; "
            "compare runs with the same first_row"
        )
    return {language: theirs[language] for language in ours}


def compare(ours: Mapping[str, Any], theirs: Mapping[str, float], against: str) -> dict[str, Any]:
    """Return the chrF1 differences from another run over the same rows, and the languages where this run is higher."""
    difference = {language: scores[HEADLINE] - theirs[language] for language, scores in ours.items()}
    return {
        "run": against,
        "metric": HEADLINE,
        "num_languages": len(ours),
        "above": [language for language in ours if difference[language] > 0],
        "difference": difference,
    }


def _average_errors(scored: Sequence[TextScores]) -> dict[str, float]:
    """Return standard errors of the averages over languages; a resample draws the same rows in every language."""
    return {name: float(np.mean([each.resampled[name] for each in scored], axis=0).std(ddof=1)) for name in METRICS}
