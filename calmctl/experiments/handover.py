"""Text hand-over: another model's answers stand before the questions, which needs no training and no bridges."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calmctl.errors import UserError
from calmctl.experiments.scoring import PREDICTIONS_FILE, read_completions
from evals import Request

PLACE = "{answer}"


def answers_file(source: str) -> Path:
    """Return the file of completions that is meant: one, or that of a finished evaluation."""
    path = Path(source)
    return path / PREDICTIONS_FILE if path.is_dir() else path


def with_answers(requests: Sequence[Request], source: str, text: str) -> list[Request]:
    """Return requests before whose question stands what another model answered it.

    Args:
        source: a finished evaluation of the same questions, or a file of completions; of several samples the
            first counts.
        text: what stands before a question; `{answer}` in it becomes the answer.

    Raises:
        UserError: there is no such file, or a question has no answer in it.
    """
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
