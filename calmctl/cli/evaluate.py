"""`calmctl eval`: generate with a model and score."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output


def evaluate(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to evaluate; `calmctl ls tasks` lists them.")],
    out: options.Out,
    overrides: options.Overrides = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A run, folder or hub id, plain or composed.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The task's data folder.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first so many records; 0 = all.")] = None,
    allow_different_base: options.AllowDifferentBase = False,
    preset: options.Preset = "default",
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Evaluate a model on a task: really generated, then scored."""
    from calmctl.cli.progress import watching
    from calmctl.config import load_config, to_dict
    from calmctl.experiments.evaluation import METRICS_FILE, EvalConfig, run_evaluation
    from calmctl.files import read_json

    settings = options.with_options(
        overrides,
        task=task,
        model=model,
        dataset=data,
        limit=limit,
        allow_different_base=allow_different_base or None,
    )
    if seed is not None:
        settings.insert(0, f"decoding.seed={seed}")
    config = load_config(EvalConfig, f"eval/{preset}", settings, config_dir)
    if dry_run:
        output.print_plan({"command": "eval", "preset": preset, "out": str(out), **to_dict(config)}, json)
        return
    with watching({out.name: out}):
        run_evaluation(config, out, sys.argv)
    result = read_json(out / METRICS_FILE)
    if json:
        output.print_json(result)
        return
    rows = [(name, f"{value:.1f}") for name, value in result["metrics"].items()]
    output.print_table(["metric", "value"], rows, title=f"{task}: {config.model} (n = {result['n']})")
