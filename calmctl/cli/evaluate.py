"""`calmctl eval`: generate with a model and score."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import options, output
from calmctl.cli.launching import launchable
from calmctl.cli.loading import loading
from calmctl.processes.parent import is_first_process

if TYPE_CHECKING:
    from calmctl.evaluation.config import EvalConfig


@launchable
def evaluate(
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK... [KEY=VALUE]...",
            help="What to evaluate; `calmctl ls tasks` lists them, `all` means every one whose data is there. "
            f"{options.settings_help('eval')} options.NAME=VALUE is an option of the task.",
            show_default=False,
        ),
    ],
    out: options.Out,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A run, folder, GGUF file or hub id, plain or composed.")
    ] = None,
    data: options.Data = None,
    limit: options.Limit = None,
    shots: options.Shots = None,
    languages: options.Languages = None,
    against: options.Against = None,
    allow_code_execution: options.AllowCodeExecution = False,
    anchor: options.AnchorElsewhere = None,
    aug: options.AugsElsewhere = None,
    allow_different_base: options.AllowDifferentBase = False,
    trust_remote_code: options.TrustRemoteCode = False,
    preset: Annotated[str | None, options.preset_of("eval")] = None,
    config_file: options.ConfigFile = None,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Generate completions for tasks and score them. Several tasks write OUT/TASK each."""
    from calmctl.cli.progress import watching
    from calmctl.errors import CalmctlError

    chosen = options.chosen_preset("eval", preset, config_file, config_dir)
    named, overrides = options.split_overrides(tasks)
    given = options.task_options(shots, languages, against, allow_code_execution)
    settings: dict[str, object] = {"model": model, "anchor": anchor, "augs": tuple(aug) if aug else None}
    settings |= {"limit": limit, "allow_different_base": allow_different_base or None}
    settings["trust_remote_code"] = trust_remote_code or None
    settings["decoding.seed"] = seed

    def configure(task: str, dataset: Path | None, task_options: Mapping[str, object]) -> EvalConfig:
        own = {f"options.{name}": value for name, value in task_options.items()}
        config: EvalConfig = chosen.load(options.with_options(overrides, task=task, dataset=dataset, **settings, **own))
        return config

    plan = _plan(named, data, given, out, configure)
    next(iter(plan.values())).check_inputs()  # all have the same model
    with loading():
        from calmctl.evaluation.evaluating import plan_evaluations, run_evaluations

    if dry_run:
        planned, failed = plan_evaluations(plan)
        one = {"command": "eval", "preset": chosen.label}
        output.print_plan({**one, **planned[0]} if len(plan) == 1 else {**one, "tasks": planned}, json)
    else:
        with watching({folder.name: folder for folder in plan}):
            failed = run_evaluations(plan, sys.argv)
        if is_first_process():
            _print_results(plan, failed, json)
    if failed:
        reasons = "; ".join(f"{plan[folder].task} ({reason})" for folder, reason in failed.items())
        raise CalmctlError(f"{len(failed)} of {len(plan)} tasks failed, the others are done: {reasons}")


def _plan(
    named: Sequence[str],
    data: Path | None,
    given: Mapping[str, object],
    out: Path,
    configure: Any,
) -> dict[Path, EvalConfig]:
    """Return folder -> evaluation settings; print why `all` skips a task.

    Models are looked for and data are read before torch is loaded: mistakes then show at once.
    """
    from calmctl.errors import UserError
    from calmctl.evaluation.tasks import ALL, check_options, find_data, has_option, names_of, try_data

    tasks = names_of(named)
    if len(named) == 1 and named[0] != ALL:
        check_options(tasks[0], given)
        config: EvalConfig = configure(tasks[0], data, given)
        if config.dataset:
            config.load_records()
        return {out: config}
    if data is None:
        raise UserError("dataset is not set; give --data FOLDER, which holds a folder for each task")
    plan = {}
    for task in tasks:
        if ALL not in named:
            check_options(task, given)
            plan[out / task] = configure(task, find_data(task, data), given)
            plan[out / task].load_records()
            continue
        own = {name: value for name, value in given.items() if has_option(task, name)}
        found = try_data(task, data, partial(configure, task, task_options=own))
        if isinstance(found, str):
            output.note(f"skipped {task}: {found}")
        else:
            plan[out / task] = found
    if not plan:
        raise UserError(f"--data {data}: nothing there can be evaluated (each task's reason is above)")
    return plan


def _print_results(plan: Mapping[Path, EvalConfig], failed: Mapping[Path, str], json: bool) -> None:
    from calmctl.runs.record import METRICS_FILE
    from data_builders.values import read_json

    results = {folder: read_json(folder / METRICS_FILE) for folder in plan if folder not in failed}
    if json:
        errors = [{"task": plan[folder].task, "error": reason} for folder, reason in failed.items()]
        told = [*results.values(), *errors]
        output.print_json(told[0] if len(plan) == 1 else told)
        return
    for folder, result in results.items():
        output.print_metrics(result, plan[folder].model)
