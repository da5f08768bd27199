"""What tasks on texts have in common: answers up to a stop string, their scores over a corpus and one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evals.metrics.translation import bootstrap_scores, corpus_scores, sentence_chrf1, sentence_statistics
from evals.task import Completions, before_stops

NUM_RESAMPLES = 200


class Answered(Protocol):
    """A record with one right answer."""

    @property
    def id(self) -> str:
        """Return what names the record and its request."""

    @property
    def prompt(self) -> str:
        """Return the question, without worked examples."""

    @property
    def reference(self) -> str:
        """Return the right answer."""


@dataclass(frozen=True)
class TextScores:
    """The answers to the records of a language.

    Attributes:
        answers: without white space around them.
        metrics: chrF1, chrF2, chrF++ and BLEU of the corpus.
        resampled: the same of corpora resampled from it, (NUM_RESAMPLES,) each.
        samples: a row for each record.
    """

    answers: list[str]
    metrics: dict[str, float]
    resampled: Mapping[str, NDArray[np.float64]]
    samples: list[dict[str, Any]]

    @property
    def standard_error(self) -> dict[str, float]:
        """Return the standard error of each metric."""
        return {name: float(scores.std(ddof=1)) for name, scores in self.resampled.items()}


def score_texts(records: Sequence[Answered], completions: Completions, stop: Collection[str]) -> TextScores:
    """Score what stands before the first stop string of each completion against the reference."""
    texts = [completions[record.id][0] for record in records]
    answers = [before_stops(text, stop).strip() for text in texts]
    statistics = sentence_statistics(answers, [record.reference for record in records])
    samples = [
        {
            "id": record.id,
            "prompt": record.prompt,
            "completion": text,
            "answer": answer,
            "reference": record.reference,
            "sentence_chrf1": chrf1,
        }
        for record, text, answer, chrf1 in zip(records, texts, answers, sentence_chrf1(statistics), strict=True)
    ]
    return TextScores(answers, corpus_scores(statistics), bootstrap_scores(statistics, NUM_RESAMPLES), samples)
