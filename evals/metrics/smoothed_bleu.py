"""CodeXGLUE's smoothed BLEU-4, averaged over examples; sacrebleu has no such setting.

The official evaluator's two rounds of tokenisation amount to: lower-cased runs of letters and digits, and every other
visible character as a token. Orders above one get add-one smoothing. The brevity penalty counts one token too many on
both sides, so an empty prediction scores exp(-length of the reference), not zero.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence

from data_builders.errors import UserError

MAX_ORDER = 4
_TOKEN = re.compile(r"[^\W_]+|_|[^\w\s]")
_TINY = sys.float_info.min


def smoothed_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the examples' mean smoothed BLEU-4 in percent; raise UserError if the counts differ or are zero."""
    if len(predictions) != len(references) or not references:
        raise UserError(f"metric: {len(predictions)} predictions for {len(references)} references; give one for each")
    pairs = zip(predictions, references, strict=True)
    return sum(example_bleu(prediction, reference) for prediction, reference in pairs) * 100.0 / len(references)


def example_bleu(prediction: str, reference: str) -> float:
    """Return one example's smoothed BLEU-4, 0 to 1; ignore the prediction after its first tab."""
    guess, wanted = _tokens(prediction.rstrip().partition("\t")[0]), _tokens(reference)
    log_precision = 0.0
    for order in range(1, MAX_ORDER + 1):
        guessed, there = _ngrams(guess, order), _ngrams(wanted, order)
        correct = sum(min(count, there[ngram]) for ngram, count in guessed.items())
        smoothing = 1 if order > 1 else 0
        total = max(len(guess) - order + 1, 0)
        log_precision += math.log(correct + smoothing + _TINY) - math.log(total + smoothing + _TINY)
    brevity = min(0, 1 - (len(wanted) + 1) / (len(guess) + 1))
    return math.exp(log_precision / MAX_ORDER + brevity)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
