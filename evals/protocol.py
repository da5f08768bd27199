"""What every result says about how it came about, so that a stranger can repeat it and argue with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_builders.errors import DataError
from evals.task import Request


def require_records(records: Sequence[object]) -> None:
    """Raise DataError where there is nothing to score."""
    if not records:
        raise DataError("records: there are none; score at least one")


def describe(
    format: str,
    requests: Sequence[Request],
    metrics: Mapping[str, Any],
    files: Mapping[str, str],
    split: str,
    shots: int,
    exemplars: Mapping[str, Sequence[str]],
    skipped: Mapping[str, str] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Return a result's protocol.

    Args:
        format: id of the prompt format.
        requests: what was asked; the first is quoted whole.
        metrics: name, signature and settings of each metric.
        files: sha256 by file of the data.
        exemplars: ids of the worked examples, by the group of records that they stood before.
        skipped: why a record was left out, by its id.
    """
    return {
        "format": format,
        "split": split,
        "shots": shots,
        "exemplars": {group: list(ids) for group, ids in exemplars.items()},
        "stop": list(dict.fromkeys(stop for request in requests for stop in request.stop)),
        "max_new_tokens": max(request.max_new_tokens for request in requests),
        "metrics": dict(metrics),
        "data_sha256": dict(files),
        "num_scored": len(requests),
        "num_skipped": len(skipped or {}),
        "skipped": dict(skipped or {}),
        "first_prompt": requests[0].text,
        **others,
    }
