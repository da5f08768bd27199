"""`calmctl compose`: train the bridges between a frozen anchor and frozen augs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calmctl.cli import options
from calmctl.cli.launching import launchable, run_or_plan
from calmctl.cli.loading import loading
from calmctl.cli.sweeping import sweepable

if TYPE_CHECKING:
    from calmctl.training.configs import ComposeConfig


@sweepable
@launchable
def compose(
    out: options.Out,
    overrides: options.Overrides = None,
    anchor: options.Anchor = None,
    aug: options.Augs = None,
    data: Annotated[Path | None, typer.Option("--data", help="D_C, the composition data: JSONL or Parquet.")] = None,
    validation: options.Validation = None,
    marker: options.Markers = None,
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
    with loading():
        from calmctl.training.compositions import composition_job

    config = composition_config(
        preset,
        overrides,
        aug,
        marker,
        config_dir,
        anchor=anchor,
        dataset=data,
        validation=validation,
        seed=seed,
        merge_bases=merge_bases or None,
        trust_remote_code=trust_remote_code or None,
    )
    run_or_plan(composition_job(config), preset, out, dry_run, json)


def composition_config(
    preset: str,
    overrides: list[str] | None,
    augs: list[str] | None,
    markers: list[str] | None = None,
    config_dir: Path | None = None,
    **given: object,
) -> ComposeConfig:
    """Return the settings of a composition: the preset, changed by the options and then by the overrides.

    Raises:
        UserError: see `load_config` and `as_markers`.
    """
    from calmctl.config import load_config
    from calmctl.training.configs import ComposeConfig

    settings = options.with_options(overrides, **given)
    if augs:
        settings.insert(0, f"augs=[{','.join(options.quoted(model) for model in augs)}]")
    config = load_config(ComposeConfig, f"compose/{preset}", settings, config_dir)
    return replace(config, markers={**config.markers, **options.as_markers(markers)})
