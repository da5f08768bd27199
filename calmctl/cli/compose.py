"""`calmctl compose`: train the bridges between a frozen anchor and frozen augs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.launching import launchable


@launchable
def compose(
    out: options.Out,
    overrides: options.Overrides = None,
    anchor: Annotated[
        str | None, typer.Option("--anchor", help="The large, general model: a run, folder or hub id.")
    ] = None,
    aug: Annotated[
        list[str] | None, typer.Option("--aug", help="The small, specialised model; may be given several times.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="D_C, the composition data: JSONL or Parquet.")] = None,
    validation: options.Validation = None,
    preset: options.Preset = "default",
    merge_bases: Annotated[
        bool, typer.Option("--merge-bases", help="Write the bases too: a self-contained model.")
    ] = False,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Compose models: train the bridges from the augs to the anchor; both stay frozen."""
    from calmctl.cli.progress import watching
    from calmctl.config import load_config
    from calmctl.training.configs import ComposeConfig
    from calmctl.training.jobs import run_composition
    from calmctl.training.plan import plan_composition

    settings = options.with_options(
        overrides, anchor=anchor, dataset=data, validation=validation, seed=seed, merge_bases=merge_bases or None
    )
    if aug:
        settings.insert(0, f"augs=[{','.join(options.quoted(model) for model in aug)}]")
    config = load_config(ComposeConfig, f"compose/{preset}", settings, config_dir)
    if dry_run:
        output.print_plan({"command": "compose", "preset": preset, "out": str(out), **plan_composition(config)}, json)
        return
    with watching({out.name: out}):
        run = run_composition(config, out, sys.argv)
    output.print_run(run, json)
