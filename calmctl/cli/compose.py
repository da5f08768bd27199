"""`calmctl compose`: train the bridges between a frozen anchor and frozen augs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options
from calmctl.cli.launching import launchable
from calmctl.cli.training import run_or_plan


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
    trust_remote_code: options.TrustRemoteCode = False,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Compose models: train the bridges from the augs to the anchor; both stay frozen."""
    from calmctl.config import load_config
    from calmctl.training.configs import ComposeConfig
    from calmctl.training.jobs import composition_job

    settings = options.with_options(
        overrides,
        anchor=anchor,
        dataset=data,
        validation=validation,
        seed=seed,
        merge_bases=merge_bases or None,
        trust_remote_code=trust_remote_code or None,
    )
    if aug:
        settings.insert(0, f"augs=[{','.join(options.quoted(model) for model in aug)}]")
    config = load_config(ComposeConfig, f"compose/{preset}", settings, config_dir)
    run_or_plan(composition_job(config), "compose", preset, out, dry_run, json)
