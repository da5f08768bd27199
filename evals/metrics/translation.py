"""chrF1, chrF2, chrF++ and BLEU of a corpus, through sacrebleu, from statistics that are computed once a sentence.

chrF1 and chrF2 weigh the character n-grams that chrF++ counts anyway, so one pass over the text serves the four. The
counts are sacrebleu's to the last one, computed for all sentences at once; scores come from sacrebleu's own formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_builders.errors import DataError

METRICS = ("chrf1", "chrf2", "chrf++", "bleu")
CHAR_ORDER, WORD_ORDER, BLEU_ORDER = 6, 2, 4
# Columns of the statistics: (hypothesis, reference, match) counts of each order of chrF++, then BLEU's own ten.
_CHARS = slice(0, 3 * CHAR_ORDER)
_CHARS_AND_WORDS = slice(0, 3 * (CHAR_ORDER + WORD_ORDER))
_BLEU = slice(_CHARS_AND_WORDS.stop, _CHARS_AND_WORDS.stop + 2 + 2 * BLEU_ORDER)
_COLUMNS = {"chrf1": _CHARS, "chrf2": _CHARS, "chrf++": _CHARS_AND_WORDS, "bleu": _BLEU}
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

Statistics = NDArray[np.int64]


def sentence_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """Return the counts that the metrics are made of, (sentence, column); their sum is the corpus's.

    Raises:
        DataError: there are not as many hypotheses as references, or none at all.
    """
    if len(hypotheses) != len(references) or not references:
        raise DataError(f"metric: {len(hypotheses)} hypotheses for {len(references)} references; give one for each")
    characters = _ngram_counts(_characters(hypotheses), _characters(references), CHAR_ORDER)
    words = _ngram_counts(*_tokens(hypotheses, references, _chrf_words), WORD_ORDER)
    chrf = np.concatenate([characters, words], axis=1)
    chrf[..., 0] *= chrf[..., 1] > 0  # an order that the reference has no n-grams of does not count
    tokenize = _metric("bleu").tokenizer
    bleu = _ngram_counts(*_tokens(hypotheses, references, lambda text: tokenize(text.rstrip()).split()), BLEU_ORDER)
    # The unigrams' totals are the lengths.
    return np.concatenate([chrf.reshape(len(chrf), -1), bleu[:, 0, :2], bleu[..., 2], bleu[..., 0]], axis=1)


def corpus_scores(statistics: Statistics) -> dict[str, float]:
    """Return the four metrics, 0 to 100, of the corpus of these sentences (sentence, column)."""
    return _scores(statistics.sum(axis=0))


def sentence_chrf1(statistics: Statistics) -> list[float]:
    """Return chrF1 of each sentence on its own; their mean is not the corpus's."""
    return [_score("chrf1", row) for row in statistics[:, _COLUMNS["chrf1"]].tolist()]


def bootstrap_scores(statistics: Statistics, num_resamples: int = 200, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Return the four metrics of corpora resampled from these sentences, (num_resamples,) each.

    The same sentences are drawn for every corpus of that many, so corpora over the same rows can be compared pairwise.
    """
    rows = len(statistics)
    drawn = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=num_resamples)
    scores = [_scores(sums) for sums in drawn @ statistics]
    return {name: np.array([each[name] for each in scores]) for name in METRICS}


def signatures() -> dict[str, dict[str, Any]]:
    """Return name, signature and beta of each metric; sacrebleu's signature says nothing of beta."""
    described = {}
    for name in METRICS:
        metric = _metric(name)
        score = metric.corpus_score(["a"], [["a"]])  # a signature is known once something was scored
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


@dataclass(frozen=True)
class _Sequences:
    """Sentences as numbers, end to end: the symbols (total,) and how many belong to each sentence."""

    symbols: NDArray[np.int64]
    lengths: NDArray[np.int64]


def _characters(texts: Sequence[str]) -> _Sequences:
    """Return code points; white space does not count."""
    squeezed = ["".join(text.split()) for text in texts]
    points = np.frombuffer("".join(squeezed).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return _Sequences(points.astype(np.int64), np.array([len(text) for text in squeezed], dtype=np.int64))


def _tokens(
    hypotheses: Sequence[str], references: Sequence[str], split: Callable[[str], list[str]]
) -> tuple[_Sequences, _Sequences]:
    """Return tokens as indices into a vocabulary that both sides share."""
    vocabulary: dict[str, int] = {}

    def number(texts: Sequence[str]) -> _Sequences:
        sentences = [[vocabulary.setdefault(token, len(vocabulary)) for token in split(text)] for text in texts]
        symbols = [symbol for sentence in sentences for symbol in sentence]
        lengths = [len(sentence) for sentence in sentences]
        return _Sequences(np.array(symbols, dtype=np.int64), np.array(lengths, dtype=np.int64))

    return number(hypotheses), number(references)


def _chrf_words(text: str) -> list[str]:
    """Split as chrF++ does: at white space, and one punctuation mark off the end of a word, or else off its start."""
    words = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


def _ngram_counts(hypotheses: _Sequences, references: _Sequences, max_order: int) -> NDArray[np.int64]:
    """Return n-grams of the hypothesis, of the reference, and in both (clipped): (sentence, order, 3).

    An n-gram's number is made of that of its first n - 1 symbols and its last symbol, and starts with the sentence's:
    equal numbers are equal n-grams of one sentence, without hashing.
    """
    num_sentences, num_hypothesis = len(references.lengths), len(hypotheses.symbols)
    lengths = np.concatenate([hypotheses.lengths, references.lengths])
    alphabet, symbols = np.unique(np.concatenate([hypotheses.symbols, references.symbols]), return_inverse=True)
    ends = np.repeat(np.cumsum(lengths), lengths)
    sentences = np.repeat(np.tile(np.arange(num_sentences), 2), lengths)
    starts = np.arange(len(symbols))
    prefixes = sentences
    counts = np.zeros((num_sentences, max_order, 3), dtype=np.int64)
    for order in range(1, max_order + 1):
        fits = starts + order <= ends[starts]
        starts, prefixes = starts[fits], prefixes[fits]
        ngrams, prefixes = np.unique(prefixes * len(alphabet) + symbols[starts + order - 1], return_inverse=True)
        split = np.searchsorted(starts, num_hypothesis)
        in_hypothesis = np.bincount(prefixes[:split], minlength=len(ngrams))
        in_reference = np.bincount(prefixes[split:], minlength=len(ngrams))
        owner = np.empty(len(ngrams), dtype=np.int64)
        owner[prefixes] = sentences[starts]
        for column, of_ngrams in enumerate((in_hypothesis, in_reference, np.minimum(in_hypothesis, in_reference))):
            np.add.at(counts[:, order - 1, column], owner, of_ngrams)
    return counts
