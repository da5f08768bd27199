"""`calmctl baseline`: train a method to compare a composition with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options
from calmctl.cli.launching import launchable, run_or_plan
from calmctl.cli.loading import loading
from calmctl.cli.sweeping import sweepable


@sweepable
@launchable
def baseline(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="lora, prefix, prompt, p_tuning, series, parallel or full.")
    ],
    out: options.Out,
    overrides: options.Overrides = None,
    anchor: Annotated[
        str | None,
        typer.Option("--anchor", help="The model to adapt (full: to train): a run, folder, GGUF file or hub id."),
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
    trust_remote_code: options.TrustRemoteCode = False,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train a baseline: adapters with as many parameters as a composition, or the whole anchor (full)."""
    with loading():
        from calmctl.baselines.configs import BaselineConfig
        from calmctl.baselines.training import baseline_job
        from calmctl.config import load_config

    settings = options.with_options(
        overrides, method=method, anchor=anchor, dataset=data, validation=validation, match=match,
        parameters=parameters, seed=seed, merge=merge or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    config = load_config(BaselineConfig, f"baseline/{preset}", settings, config_dir)
    run_or_plan(baseline_job(config), preset, out, dry_run, json)
