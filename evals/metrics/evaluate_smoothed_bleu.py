"""Module for `evaluate.load`: CodeXGLUE's smoothed BLEU-4, averaged over examples."""

import datasets
import evaluate

from evals.metrics.smoothed_bleu import smoothed_bleu


class SmoothedBleu(evaluate.Metric):
    """Smoothed BLEU-4 as CodeXGLUE's code-to-text evaluator computes it, in percent."""

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=texts)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"smoothed_bleu4": smoothed_bleu(predictions, references)}
