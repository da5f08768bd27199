"""`calmctl score`: score completions that were made elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output


def score(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to score; `calmctl ls tasks` lists them.")],
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("score")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="JSON lines with id and completion; several of one id are its samples."),
    ] = None,
    data: options.Data = None,
    limit: options.Limit = None,
    shots: options.Shots = None,
    languages: options.Languages = None,
    against: options.Against = None,
    allow_code_execution: options.AllowCodeExecution = False,
    preset: Annotated[str | None, options.preset_of("score")] = None,
    config_file: options.ConfigFile = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Score completions that were made elsewhere, as `calmctl eval` scores its own."""
    from calmctl.cli.progress import watching
    from calmctl.evaluation.scoring import ScoreConfig, plan_scoring, run_scoring
    from calmctl.evaluation.tasks import check_options
    from calmctl.runs.record import METRICS_FILE
    from data_builders.values import read_json

    given = options.task_options(shots, languages, against, allow_code_execution)
    check_options(task, given)
    own = {f"options.{name}": value for name, value in given.items()}
    settings = options.with_options(overrides, task=task, dataset=data, limit=limit, predictions=predictions, **own)
    chosen = options.chosen_preset("score", preset, config_file, config_dir)
    config: ScoreConfig = chosen.load(settings)
    if dry_run:
        planned = {"command": "score", "preset": chosen.label, "out": str(out), **plan_scoring(config, out)}
        output.print_plan(planned, json)
        return
    with watching({out.name: out}):
        run_scoring(config, out, sys.argv)
    result = read_json(out / METRICS_FILE)
    if json:
        output.print_json(result)
    else:
        output.print_metrics(result, config.predictions)
        if cut := result["breakdown"].get("cut_to_nothing"):
            note = "the stop strings left nothing of them; if they are whole programs, add options.as_given=true"
            print(f"{cut} of the completions count for nothing: {note}", file=sys.stderr)
