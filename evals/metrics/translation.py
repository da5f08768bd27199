"""Corpus chrF1, chrF2, chrF++ and BLEU by sacrebleu, from statistics computed once per sentence.

chrF1 and chrF2 weigh the character n-grams that chrF++ counts anyway, so its statistics and BLEU's serve all four.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_builders.errors import UserError

METRICS = ("chrf1", "chrf2", "chrf++", "bleu")
CHAR_ORDER, WORD_ORDER, BLEU_ORDER = 6, 2, 4
# Columns of the statistics: (hypothesis, reference, match) counts of each order of chrF++, then BLEU's own ten.
_CHARS = slice(0, 3 * CHAR_ORDER)
_CHARS_AND_WORDS = slice(0, 3 * (CHAR_ORDER + WORD_ORDER))
_BLEU = slice(_CHARS_AND_WORDS.stop, _CHARS_AND_WORDS.stop + 2 + 2 * BLEU_ORDER)
_COLUMNS = {"chrf1": _CHARS, "chrf2": _CHARS, "chrf++": _CHARS_AND_WORDS, "bleu": _BLEU}
BLOCK = 1024  # sentences whose n-grams are in memory at once: about 100 MB

Statistics = NDArray[np.int64]


def sentence_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """Return the counts behind the metrics, (sentence, column); the corpus's are their sum over sentences.

    Raises:
        UserError: the numbers of hypotheses and references differ, or there are none.
    """
    if len(hypotheses) != len(references) or not references:
        raise UserError(f"metric: {len(hypotheses)} hypotheses for {len(references)} references; give one for each")
    blocks = []
    for start in range(0, len(references), BLOCK):
        counters = _counters(tuple(references[start : start + BLOCK]))
        some = hypotheses[start : start + BLOCK]
        blocks.append(np.concatenate([each._extract_corpus_statistics(some, None) for each in counters], axis=1))
    return np.concatenate(blocks)


@lru_cache(maxsize=1)
def _counters(references: tuple[str, ...]) -> tuple[Any, Any]:
    """Return chrF++ and BLEU with cached references: FLORES has the same ones for every language."""
    from sacrebleu.metrics import BLEU, CHRF

    # `force` silences a warning: output of models may look tokenised.
    return CHRF(word_order=WORD_ORDER, references=[references]), BLEU(force=True, references=[references])


def corpus_scores(statistics: Statistics) -> dict[str, float]:
    """Return the four corpus metrics, 0 to 100, from the statistics of its sentences (sentence, column)."""
    return _scores(statistics.sum(axis=0))


def sentence_chrf1(statistics: Statistics) -> list[float]:
    """Return chrF1 of each sentence; their mean is not the corpus's chrF1."""
    return [_score("chrf1", row) for row in statistics[:, _COLUMNS["chrf1"]].tolist()]


def bootstrap_scores(statistics: Statistics, num_resamples: int = 200, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Return the four metrics of bootstrap resamples of these sentences, (num_resamples,) each.

    Draws depend on the number of sentences and the seed only, so corpora over the same rows can be compared pairwise.
    """
    rows = len(statistics)
    drawn = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=num_resamples)
    scores = [_scores(sums) for sums in drawn @ statistics]
    return {name: np.array([each[name] for each in scores]) for name in METRICS}


def signatures() -> dict[str, dict[str, Any]]:
    """Return name, signature and beta of each metric; sacrebleu's signature omits beta."""
    described = {}
    for name in METRICS:
        metric = _metric(name)
        score = metric.corpus_score(["a"], [["a"]])  # the signature is complete only after scoring
        described[name] = {"name": score.name, "signature": str(metric.get_signature()), "level": "corpus"}
        if name != "bleu":
            described[name]["beta"] = metric.beta
    return described


@cache
def _metric(name: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return {
        "chrf1": lambda: CHRF(beta=1),
        "chrf2": lambda: CHRF(),
        "chrf++": lambda: CHRF(word_order=WORD_ORDER),
        "bleu": lambda: BLEU(tokenize="13a"),
    }[name]()


def _scores(sums: NDArray[np.int64]) -> dict[str, float]:
    return {name: _score(name, sums[part].tolist()) for name, part in _COLUMNS.items()}


def _score(name: str, counts: list[int]) -> float:
    return float(_metric(name)._compute_score_from_stats(counts).score)
