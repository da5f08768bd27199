"""Module for `evaluate.load`: corpus chrF1, chrF2, chrF++ and BLEU, with their signatures."""

from typing import Any

import datasets
import evaluate

from evals.metrics.translation import corpus_scores, sentence_statistics, signatures


class Translation(evaluate.Metric):
    """chrF1, chrF2, chrF++ and BLEU 13a over the corpus, and under `signatures` what each of them is."""

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=texts)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        return {**corpus_scores(sentence_statistics(predictions, references)), "signatures": signatures()}
