"""Module for `evaluate.load`: whether the final number of a text equals the reference."""

import datasets
import evaluate

from evals.metrics.answers import answer, parse_number


class NumberMatch(evaluate.Metric):
    """Percentage of texts whose number (behind `phrase`, or else the last one) equals the reference, as numbers."""

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=texts)

    def _compute(
        self, predictions: list[str], references: list[str], phrase: str = "####", language: str = "en"
    ) -> dict[str, float]:
        pairs = zip(predictions, references, strict=True)
        wanted = [(answer(text, phrase, language), parse_number(reference)) for text, reference in pairs]
        return {"exact_match": 100 * sum(a is not None and a == b for a, b in wanted) / len(wanted)}
