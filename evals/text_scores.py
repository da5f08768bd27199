"""Scoring shared by the text tasks: answers cut at stop strings, scored as a corpus and one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.metrics.translation import bootstrap_scores, corpus_scores, sentence_chrf1, sentence_statistics
from evals.task import Completions, Request, before_stops

NUM_RESAMPLES = 200


@dataclass(frozen=True)
class TextScores:
    """The answers to the records of one language or group, and their scores.

    Attributes:
        answers: as read from the completions, by default without surrounding whitespace.
        metrics: chrF1, chrF2, chrF++ and BLEU of the corpus.
        resampled: the same metrics of bootstrap resamples, (NUM_RESAMPLES,) each.
        samples: one row per record.
    """

    answers: list[str]
    metrics: dict[str, float]
    resampled: Mapping[str, NDArray[np.float64]]
    samples: list[dict[str, Any]]

    @property
    def standard_error(self) -> dict[str, float]:
        """Return the standard error of each metric."""
        return {name: float(scores.std(ddof=1)) for name, scores in self.resampled.items()}


def score_texts(
    asked: Sequence[tuple[Request, str]], completions: Completions, read: Callable[[str], str] = str.strip
) -> TextScores:
    """Score each completion, cut at its first stop string.

    Args:
        asked: each request with its reference answer.
        read: returns the answer in such a text.
    """
    texts = [completions[request.id][0] for request, _ in asked]
    answers = [read(before_stops(text, request.stop)) for (request, _), text in zip(asked, texts, strict=True)]
    statistics = sentence_statistics(answers, [reference for _, reference in asked])
    samples = [
        {
            "id": request.id,
            "prompt": request.prompt,
            "completion": text,
            "answer": answer,
            "reference": reference,
            "sentence_chrf1": chrf1,
        }
        for (request, reference), text, answer, chrf1 in zip(
            asked, texts, answers, sentence_chrf1(statistics), strict=True
        )
    ]
    return TextScores(answers, corpus_scores(statistics), bootstrap_scores(statistics, NUM_RESAMPLES), samples)
