"""Text hand-over: another model's answers stand before the questions, which needs no training and no bridges."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calmctl.errors import UserError
from calmctl.evaluation.scoring import METRICS_FILE, PREDICTIONS_FILE, read_completions
from calmctl.files import read_json
from evals import Request

PLACE = "{answer}"


def answers_file(source: str) -> Path:
    """Return the file of completions that is meant: one, or that of a finished evaluation."""
    path = Path(source)
    return path / PREDICTIONS_FILE if path.is_dir() else path


def with_answers(requests: Sequence[Request], source: str, text: str, asked: tuple[str, str]) -> list[Request]:
    """Return requests before whose question stands what another model answered it.

    Args:
        source: a finished evaluation of the same questions, or a file of completions; of several samples the
            first counts.
        asked: the task, and the checksum of its data.
        text: what stands before a question; `{answer}` in it becomes the answer.

    Raises:
        UserError: there is no such file, it is of another task or other data, or a question has no answer in it.
    """
    if (metrics := Path(source) / METRICS_FILE).is_file():
        other = read_json(metrics)
        theirs = other.get("task"), (other.get("data") or {}).get("sha256")
        if theirs != asked:
            raise UserError(
                f"handover={source}: it answered {theirs[0]} over other data than this evaluation of {asked[0]}; name "
                "one of the same task and data"
            )
    answers = read_completions(answers_file(source))
    if missing := [request.id for request in requests if not answers.get(request.id)]:
        raise UserError(
            f"handover={source}: no answer to {missing[0]!r} ({len(missing)} of {len(requests)} questions have none); "
            "name an evaluation of the same task, data and options"
        )
    return [
        replace(request, prompt=text.replace(PLACE, answers[request.id][0].strip()) + request.prompt)
        for request in requests
    ]
