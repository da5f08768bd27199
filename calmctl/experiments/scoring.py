"""Scoring: completions in, `metrics.json` and `predictions.jsonl` out, whoever made the completions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from calmctl.environment import git_commit, package_versions
from calmctl.errors import UserError
from calmctl.experiments.tasks import TaskConfig
from calmctl.files import sha256_of
from calmctl.runs import Run
from data_builders.errors import DataError
from data_builders.rows import iter_rows
from evals import Completion, Completions, Scores, Task
from evals.task import by_id, require_completions

_EXAMPLE = '{"id": ..., "completion": ...}'
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.jsonl"


@dataclass(frozen=True)
class ScoreConfig(TaskConfig):
    """Score completions that were made elsewhere.

    Attributes:
        predictions: JSON lines with `id` and `completion`; several lines of one id are its samples.
        ids: which requests of the task are scored: `all`, or those `given` in the predictions.
    """

    predictions: str = ""
    ids: Literal["all", "given"] = "all"


def run_scoring(config: ScoreConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Score as configured into a run directory; return at once when it is complete.

    Raises:
        UserError: no data or predictions were given, or they do not fit the task.
    """
    if not config.predictions:
        raise UserError("predictions is not set; give --predictions FILE")
    file = Path(config.predictions)
    checksum = sha256_of(file)
    inputs = {"data": config.data_sha256(), "predictions": checksum}
    with Run.start(out, kind="score", config=config, command=command, inputs=inputs) as run:
        if not run.is_complete:
            task = config.build_task()
            records = task.load(Path(config.dataset), config.limit or None)
            completions = read_completions(file)
            if config.ids == "given":
                records = _with_completions(task, records, completions) or records
            try:
                require_completions(task.requests(records), completions)
            except DataError as error:
                raise UserError(f"{file}: {error}") from error
            about = {"model": {"predictions": config.predictions, "sha256": checksum}}
            write_scores(run, config, task, records, completions, about)
            run.finish()
        return run


def _with_completions(task: Task[Any], records: Sequence[Any], completions: Completions) -> list[Any]:
    """Return the records all of whose requests have completions, but for requests that want none."""
    return [
        record
        for record in records
        if all(request.id in completions or not request.num_samples for request in task.requests([record]))
    ]


def write_scores(
    run: Run,
    config: TaskConfig,
    task: Task[Any],
    records: Sequence[Any],
    completions: Completions,
    about: Mapping[str, Any],
    protocol: Mapping[str, Any] | None = None,
    measured: Scores | None = None,
) -> None:
    """Score completions and write what a task's result consists of.

    Args:
        about: what else the result says (the model, how it generated).
        protocol: added to the task's own.
        measured: figures that do not come from completions, which stand beside the task's own.
    """
    scores = task.score(records, completions)
    if measured is not None:
        scores = replace(
            scores,
            metrics={**scores.metrics, **measured.metrics},
            breakdown={**scores.breakdown, **measured.breakdown},
        )
    run.write_text(PREDICTIONS_FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores.samples))
    run.write_json(
        METRICS_FILE,
        {
            "task": config.task,
            "task_version": task.version,
            "metrics": scores.metrics,
            "n": scores.n,
            "breakdown": scores.breakdown,
            "protocol": {**scores.protocol, **(protocol or {})},
            "options": config.options,
            "data": {"source": config.dataset, "sha256": config.data_sha256(), "limit": config.limit or None},
            **about,
            "versions": package_versions(),
            "git_commit": git_commit(),
        },
    )


def read_completions(path: Path) -> dict[str, list[str]]:
    """Read JSON lines with `id` and `completion`; several of one id are its samples, in their order.

    Raises:
        UserError: a line is no such object, or there is none at all.
    """
    try:
        rows = list(iter_rows(path, {"id": str, "completion": str}))
    except DataError as error:
        raise UserError(f"{error} (a prediction is a line as {_EXAMPLE})") from error
    if not rows:
        raise UserError(f"{path} is empty; it needs a line with id and completion for every request of the task")
    return by_id(Completion(row["id"], row["completion"]) for row in rows)
