"""The plan of an experiment: its models, trainings and evaluations, and their total cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.planning.evaluations import (
    BYTES_PER_TOKEN,
    SECONDS_PER_BLOCK,
    EvaluationPlan,
    EvaluationPlanner,
)
from calmctl.experiments.planning.trainings import Planner, TrainingPlan
from calmctl.experiments.reproduction import Experiment
from calmctl.experiments.stage import Stage
from calmctl.modeling.bases.public_shapes import shape_of
from calmctl.modeling.bases.sources import find_tokenizer
from calmctl.modeling.tokenizers.same_ids import num_token_ids
from calmctl.training.plan import PlannedModel, described

# Dense bfloat16 FLOP/s and memory bytes/s, from the data sheets (80 GB, SXM).
DEVICES = {"A100": (312e12, 2.04e12), "H100": (989e12, 3.35e12)}
UTILISATION = 0.4


def plan_experiment(experiment: Experiment, stages: Sequence[Stage]) -> dict[str, Any]:
    """Return models, trainings, evaluations and total cost of an experiment; download, load and write nothing.

    Trainings that differ only in their seed share a row (`runs` is their number), as do all models of an evaluation.

    Raises:
        UserError: a training would reject its settings, or a model is neither on disk nor in `public_shapes`.
    """
    planner = Planner(experiment.token_ids or (lambda _: _vocab_size(experiment)))
    trainings = _trainings(planner, stages)
    evaluations = _evaluations(planner, stages)
    rows = [*trainings, *evaluations]
    known = [row for row in rows if row["flops"] is not None]
    models = [_described(source, model) for source, model in planner.existing.items()]
    hours = {device: sum(row["runs"] * row["hours"][device] for row in known) for device in DEVICES}
    return {
        "models": models,
        "trainings": trainings,
        "evaluations": evaluations,
        "totals": {
            "training_flops": sum(row["runs"] * row["flops"] for row in trainings),
            "evaluation_flops": sum(row["flops"] for row in known if row in evaluations),
            "hours": hours,
            "largest_memory_bytes": max((row["memory_bytes"] for row in trainings), default=0),
            "disk_bytes": sum(row["runs"] * row["disk_bytes"] for row in trainings)
            + sum(model["weight_bytes"] for model in models),
            "unknown": [f"{row['task']}: {row['reason']}" for row in evaluations if row["reason"]],
        },
        "assumptions": [
            f"{UTILISATION:.0%} of the FLOP/s of one device ({_listed()}) in bfloat16",
            f"a decoding step takes at least the time to read all weights, and {1000 * SECONDS_PER_BLOCK:g} ms a block",
            "attention at rows of train.context tokens; every position is learned",
            f"{BYTES_PER_TOKEN:g} bytes a token in prompts, and answers as long as they may be",
            "weights, gradients and optimizer states; activations come on top",
        ],
    }


def _vocab_size(experiment: Experiment) -> int:
    """Return the number of token ids of models trained from scratch."""
    if experiment.tokenizer:
        if tokenizer := find_tokenizer(experiment.tokenizer, local_files_only=True):
            return num_token_ids(tokenizer)
        shape = shape_of(experiment.tokenizer)
        return shape.token_ids or shape.config.vocab_size
    if size := getattr(experiment.data, "vocab_size", None):
        return int(size)
    raise UserError("data.vocab_size=null trains no tokenizer, which a model from scratch needs; set it")


def _trainings(planner: Planner, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    found: dict[TrainingPlan, int] = {}
    for stage in stages:
        if plan := planner.plan(stage):
            # Seeds of one system have the same plan.
            plan = replace(plan, stage=stage.name.partition("_seed")[0])
            found[plan] = found.get(plan, 0) + 1
    return [{**asdict(plan), "runs": runs, "hours": _hours(plan.flops)} for plan, runs in found.items()]


def _evaluations(planner: Planner, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    prompts, rows = EvaluationPlanner(), dict[str, dict[str, Any]]()
    for stage in stages:
        if not isinstance(config := stage.config, EvalConfig):
            continue
        plan, model = prompts.plan(config), planner.model(config.model)
        evaluation = stage.name.split("/")[1]
        row = rows.setdefault(
            evaluation,
            {"task": evaluation, "models": 0, "runs": 1, "prompts": plan.prompts, "prompt_tokens": plan.length,
             "written_tokens": plan.written, "flops": None, "hours": None, "reason": plan.reason},
        )  # fmt: skip
        row["models"] += 1
        if plan.prompts is not None:
            row["flops"] = (row["flops"] or 0) + plan.flops(model)
            row["hours"] = _added(row["hours"], _evaluation_hours(plan, model))
    return list(rows.values())


def _hours(flops: float) -> dict[str, float]:
    return {device: flops / (UTILISATION * speed) / 3600 for device, (speed, _) in DEVICES.items()}


def _evaluation_hours(plan: EvaluationPlan, model: PlannedModel) -> dict[str, float]:
    computing = _hours(plan.flops(model))
    waiting = {device: plan.decoding_seconds(model, bandwidth) / 3600 for device, (_, bandwidth) in DEVICES.items()}
    return {device: max(computing[device], waiting[device]) for device in DEVICES}


def _added(one: Mapping[str, float] | None, other: Mapping[str, float]) -> dict[str, float]:
    return {device: (one or {}).get(device, 0) + hours for device, hours in other.items()}


def _described(source: str, model: PlannedModel) -> dict[str, Any]:
    shape = "public, not downloaded" if model.is_public else "of the model that is here"
    return {"source": source, **described(model), "weight_bytes": model.weight_bytes, "shape": shape}


def _listed() -> str:
    return ", ".join(f"{device} {speed / 1e12:.0f} TFLOP/s" for device, (speed, _) in DEVICES.items())
