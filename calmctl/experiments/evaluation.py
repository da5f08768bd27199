"""Evaluation: a model generates, the task scores; the task sees records and completions, never the model."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from calmctl.environment import package_versions
from calmctl.errors import UserError
from calmctl.files import sha256_of
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import complete
from calmctl.inference.prompt import Prompt
from calmctl.inference.throughput import Throughput
from calmctl.modeling.fingerprint import fingerprint
from calmctl.modeling.sources import load_model, load_tokenizer, quiet_libraries, source_sha256
from calmctl.runs import Run
from calmctl.schema import from_dict
from evals import TASKS, Completion, Task
from evals.task import by_id

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.jsonl"


@dataclass(frozen=True)
class EvalConfig:
    """Generate and score a task.

    Attributes:
        task: a name of `evals.TASKS`.
        options: the task's own settings (the fields of its class), such as `shots`.
        model: a run, folder or hub id.
        dataset: the task's data folder.
        limit: only the first so many records, which are balanced over strata; 0 = all.
        allow_different_base: evaluate a composed model although its bases are not the recorded ones.
        threads: CPU threads; 0 = torch's default.
    """

    task: str = "kv"
    options: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    dataset: str = ""
    limit: int = 0
    allow_different_base: bool = False
    decoding: Decoding = field(default_factory=Decoding)
    threads: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r} is not one of {', '.join(TASKS)}")
        if self.limit < 0:
            raise ValueError(f"limit={self.limit} must not be negative (0 = all records)")
        self.build_task()

    def build_task(self) -> Task[Any]:
        """Return the task with its options; raises UserError for one that it does not have."""
        return from_dict(TASKS[self.task], self.options, "options")


def run_evaluation(config: EvalConfig, out: Path, command: Sequence[str] = ()) -> Run:
    """Evaluate as configured into a run directory; return at once when it is complete.

    Raises:
        UserError: no model or data was given, or one cannot be loaded.
    """
    for name, option in (("model", "--model MODEL"), ("dataset", "--data FOLDER")):
        if not getattr(config, name):
            raise UserError(f"{name} is not set; give {option}")
    inputs = {"model": source_sha256(config.model), "data": _data_sha256(Path(config.dataset))}
    with Run.start(out, kind="eval", config=config, command=command, seed=config.decoding.seed, inputs=inputs) as run:
        if not run.is_complete:
            _evaluate(config, run)
        return run


def _evaluate(config: EvalConfig, run: Run) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)
    quiet_libraries()
    task = config.build_task()
    records = task.load(Path(config.dataset), config.limit or None)
    requests = task.requests(records)
    tokenizer = load_tokenizer(config.model)
    model = load_model(config.model, allow_different_base=config.allow_different_base).eval()
    if torch.cuda.is_available():
        model.to("cuda")
    began = time.monotonic()

    def on_batch(so_far: Throughput) -> None:
        seconds = time.monotonic() - began
        run.report_progress(
            "generating",
            so_far.done,
            len(requests),
            None,
            so_far.tokens / seconds,
            seconds / so_far.done * (len(requests) - so_far.done),
        )

    prompts = [Prompt(request.text, request.max_new_tokens, request.stop) for request in requests]
    texts = complete(model, tokenizer, prompts, config.decoding, Throughput(on_batch=on_batch))
    seconds = time.monotonic() - began
    completions = [Completion(request.id, text) for request, text in zip(requests, texts, strict=True)]
    scores = task.score(records, by_id(completions))
    run.write_text(PREDICTIONS_FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scores.samples))
    run.write_json(
        METRICS_FILE,
        {
            "task": config.task,
            "task_version": task.version,
            "model": {"source": config.model, **_identity(model)},
            "metrics": scores.metrics,
            "n": scores.n,
            "breakdown": scores.breakdown,
            "protocol": {**scores.protocol, "decoding": config.decoding.name},
            "samples_per_second": round(len(requests) / seconds, 1),
            "seconds": round(seconds, 2),
            "versions": package_versions(),
        },
    )
    run.finish(total_parameters=sum(parameter.numel() for parameter in model.parameters()))


def _identity(model: Any) -> dict[str, Any]:
    """Return the fingerprints of a model, and of the bases it was composed from."""
    identity = fingerprint(model)
    if bases := getattr(model.config, "bases", None):
        identity["bases"] = [base["fingerprint"] for base in bases]
    return identity


def _data_sha256(folder: Path) -> str:
    manifest = folder / "manifest.json"
    return sha256_of(manifest) if manifest.is_file() else str(folder)
