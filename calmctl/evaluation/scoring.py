"""Score completions, from a model or from a file, and write `metrics.json` and `predictions.jsonl`."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from calmctl.config import to_dict
from calmctl.environment import git_commit, package_versions
from calmctl.errors import CalmctlError, UserError
from calmctl.evaluation.tasks import TaskConfig, has_option
from calmctl.runs.record import METRICS_FILE, PREDICTIONS_FILE
from calmctl.runs.run import Run
from data_builders.files import sha256_of
from data_builders.progress import Progress
from data_builders.row_files import iter_rows
from evals import Completion, Completions, Scores, Task
from evals.code_scores import ProgramsTask
from evals.sandbox import Journal
from evals.task import by_id, require_completions

_LOGGER = logging.getLogger(__name__)
_EXAMPLE = '{"id": ..., "completion": ...}'
VERDICTS_FILE = "verdicts.jsonl"


@dataclass(frozen=True)
class ScoreConfig(TaskConfig):
    """Settings of a scoring of completions that were made elsewhere.

    Attributes:
        predictions: JSON lines with `id` and `completion`; lines with the same id are samples of one request.
        ids: which requests of the task to score: `all`, or only those `given` in the predictions.
    """

    predictions: str = ""
    ids: Literal["all", "given"] = "all"

    def inputs(self) -> dict[str, str]:
        """Return the checksums of data and predictions; raises UserError if one is not set or is missing."""
        if not self.predictions:
            raise UserError("predictions is not set; give --predictions FILE")
        return {"data": self.data_sha256, "predictions": sha256_of(Path(self.predictions))}


def run_scoring(config: ScoreConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Score as configured into the run directory `out`; return at once if the run is complete.

    Raises:
        UserError: data or predictions are not set, or do not match the task.
    """
    inputs = config.inputs()
    with Run.start(out, kind="score", config=config, command=command, inputs=inputs) as run:
        if not run.is_complete:
            task, records, completions, protocol = _asked(config)
            about = {"model": {"predictions": config.predictions, "sha256": inputs["predictions"]}}
            write_scores(run, config, task, records, completions, about, protocol)
            run.finish()
        return run


def plan_scoring(config: ScoreConfig, out: Path) -> dict[str, Any]:
    """Return the plan of a scoring: counts of records and completions, all settings; nothing is written or scored.

    Raises:
        UserError: anything that the run would reject.
    """
    existing = Run.look(out, kind="score", config=config, inputs=config.inputs())
    settings = {**to_dict(config), "options": to_dict(config.build_task())}
    if existing is not None and existing.is_complete:
        return {"run": "complete: nothing is left to do", **settings}
    _, records, completions, _ = _asked(config)
    counts = {"records": len(records), "completions": sum(map(len, completions.values()))}
    return {"run": "new" if existing is None else "goes on", **counts, **settings}


def _asked(config: ScoreConfig) -> tuple[Task[Any], list[Any], dict[str, list[str]], dict[str, Any]]:
    """Return the task, the records to score, their completions, and additions to the protocol in `metrics.json`."""
    task, records, protocol = load_to_score(config)
    completions = read_completions(Path(config.predictions))
    if config.ids == "given":
        records, part = given_part(task, records, completions)
        protocol |= {"subset": part}
    try:
        require_completions(task.requests(records), completions)
    except UserError as error:
        raise UserError(f"{config.predictions}: {error}") from error
    return task, records, completions, protocol


def load_to_score(config: TaskConfig) -> tuple[Task[Any], list[Any], dict[str, Any]]:
    """Load a task and its records; if the data of the worked examples is missing, do without: scores do not need them.

    Returns:
        The task, its records, and additions to the protocol: shots and exemplars are None if unknown.

    Raises:
        UserError: the data cannot be used, or `options.shots` is set and the data of the examples is missing.
    """
    task, data, limit = config.build_task(), Path(config.dataset), config.limit or None
    try:
        return task, task.load(data, limit), {}
    except UserError as error:
        if not has_option(config.task, "shots") or "shots" in config.options:
            raise
        bare = replace(config, options={**config.options, "shots": 0}).build_task()
        try:
            records = bare.load(data, limit)
        except UserError:
            raise error from None
        _LOGGER.warning("scored without the worked examples, which change no score: %s", error)
        return bare, records, {"shots": None, "exemplars": None}


def given_part(
    task: Task[Any], records: Sequence[Any], completions: Completions
) -> tuple[list[Any], dict[str, int | str]]:
    """Return the records that have completions (all records if none has), and a description of this subset."""
    ids = [{request.id for request in task.requests([record])} for record in records]
    chosen = [place for place, each in enumerate(ids) if not each.isdisjoint(completions)] or list(range(len(records)))
    names = "\n".join(name for place in chosen for name in sorted(ids[place]))
    part: dict[str, int | str] = {"records": len(chosen), "of": len(records)}
    return [records[place] for place in chosen], part | {"ids_sha256": hashlib.sha256(names.encode()).hexdigest()}


def write_scores(
    run: Run,
    config: TaskConfig,
    task: Task[Any],
    records: Sequence[Any],
    completions: Completions,
    about: Mapping[str, Any],
    protocol: Mapping[str, Any] | None = None,
    measured: Scores | None = None,
    prompts: Mapping[str, str] | None = None,
) -> None:
    """Score completions and write `metrics.json` and `predictions.jsonl`.

    Args:
        about: further entries of `metrics.json` (the model, the generation).
        protocol: added to the task's own protocol.
        measured: what likelihoods say (`Task.measure`), added to what completions say.
        prompts: what the model read in the place of a task's prompts, by request id.

    Raises:
        CalmctlError: a metric is NaN or infinite.
    """
    scores = _score(run, task, records, completions)
    if measured is not None:
        scores = replace(
            scores,
            metrics={**scores.metrics, **measured.metrics},
            breakdown={**scores.breakdown, **measured.breakdown},
            samples=[*scores.samples, *measured.samples],
        )
    if prompts:
        scores = replace(scores, samples=[{**row, "prompt": prompts[row["id"]]} for row in scores.samples])
    _check_finite("metrics", scores.metrics)
    _check_finite("breakdown", scores.breakdown)
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
            "data": {"source": config.dataset, "sha256": config.data_sha256, "limit": config.limit or None},
            **about,
            "versions": package_versions(),
            "git_commit": git_commit(),
        },
    )
    (run.path / VERDICTS_FILE).unlink(missing_ok=True)  # The predictions hold the verdicts now.


def _score(run: Run, task: Task[Any], records: Sequence[Any], completions: Completions) -> Scores:
    """Score; for a task that runs programs, journal each verdict and reuse those of an interrupted attempt."""
    if not isinstance(task, ProgramsTask):
        return task.score(records, completions)
    pace: dict[str, tuple[float, int]] = {}

    def step(stage: str, done: int, total: int) -> None:
        began, before = pace.setdefault(stage, (time.monotonic(), done))
        left = (time.monotonic() - began) * (total - done) / (done - before) if done > before else None
        run.report_progress(stage, done, total, eta_seconds=left)

    return task.score_into(records, completions, Journal(run.path / VERDICTS_FILE, Progress(step=step)))


def _check_finite(name: str, value: Any) -> None:
    """Raise CalmctlError for NaN or infinity, which JSON cannot represent."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_finite(f"{name}.{key}", part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise CalmctlError(f"{name} is {value}: it cannot be computed from these completions")


def read_completions(path: Path) -> dict[str, list[str]]:
    """Read JSON lines with `id` and `completion`; return the completions by id, in the order of the lines.

    Raises:
        UserError: a line lacks these fields, or the file is empty.
    """
    try:
        rows = list(iter_rows(path, {"id": str, "completion": str}))
    except UserError as error:
        raise UserError(f"{error} (a prediction is a line as {_EXAMPLE})") from error
    if not rows:
        raise UserError(f"{path} is empty; it needs a line with id and completion for every request of the task")
    return by_id(Completion(row["id"], row["completion"]) for row in rows)
