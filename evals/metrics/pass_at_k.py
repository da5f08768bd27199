"""pass@k: unbiased estimate of the probability that one of k samples passes (arXiv 2107.03374).

As an `evaluate` metric: `PassAtK()`, or `evaluate.load(evals.metrics.pass_at_k.__file__)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import datasets
import evaluate


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return `1 - C(n - c, k) / C(n, k)`, computed as a product that cannot overflow.

    Raises:
        ValueError: `k` is not in 1..num_samples, or `num_correct` is not in 0..num_samples.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k={k} must be in 1..{num_samples}, the number of samples")
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f"num_correct={num_correct} must be in 0..{num_samples}")
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(num_samples - num_correct + 1, num_samples + 1))


def mean_pass_at_k(outcomes: Sequence[Sequence[bool]], k: int) -> float:
    """Return the mean of pass@k over problems, each given by the outcomes of its samples.

    Raises:
        ValueError: there is no problem, or one has fewer than `k` samples.
    """
    if not outcomes:
        raise ValueError("pass@k needs at least one problem")
    return sum(pass_at_k(len(samples), sum(samples), k) for samples in outcomes) / len(outcomes)


class PassAtK(evaluate.Metric):
    """`compute(predictions=[[True, False], ...], k=[1, 2])` returns `{"pass@1": ..., "pass@2": ...}` in 0..1."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The unbiased estimate of pass@k, from the outcomes of each problem's samples.",
            citation="Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374",
            inputs_description="predictions: for each problem, whether each of its samples passed; k: a list",
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("bool"))}),
        )

    def _compute(self, predictions: Sequence[Sequence[bool]], k: Sequence[int] = (1,)) -> dict[str, Any]:
        return {f"pass@{each}": mean_pass_at_k(predictions, each) for each in k}
