"""`calmctl baseline`: train what a composition is compared with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.launching import launchable


@launchable
def baseline(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="lora, prefix, series, parallel or full.")],
    out: options.Out,
    overrides: options.Overrides = None,
    anchor: Annotated[
        str | None, typer.Option("--anchor", help="The model to adapt (full: to train): a run, folder or hub id.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="What it is trained on: D_C, as the composition was.")
    ] = None,
    validation: options.Validation = None,
    match: Annotated[
        Path | None, typer.Option("--match", help="Run whose number of trainable parameters it gets.")
    ] = None,
    parameters: Annotated[
        int | None, typer.Option("--parameters", help="Number of trainable parameters it gets.", min=1)
    ] = None,
    preset: options.Preset = "default",
    merge: Annotated[
        bool, typer.Option("--merge", help="Write a plain model with the adapters added to its weights (lora).")
    ] = False,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train a baseline: adapters with as many parameters as a composition, or the whole anchor (full)."""
    from calmctl.baselines.configs import BaselineConfig
    from calmctl.baselines.jobs import run_baseline
    from calmctl.baselines.plan import plan_baseline
    from calmctl.cli.progress import watching
    from calmctl.config import load_config

    settings = options.with_options(
        overrides, method=method, anchor=anchor, dataset=data, validation=validation, match=match,
        parameters=parameters, seed=seed, merge=merge or None,
    )  # fmt: skip
    config = load_config(BaselineConfig, f"baseline/{preset}", settings, config_dir)
    if dry_run:
        output.print_plan({"command": "baseline", "preset": preset, "out": str(out), **plan_baseline(config)}, json)
        return
    with watching({out.name: out}):
        run = run_baseline(config, out, sys.argv)
    output.print_run(run, json)
