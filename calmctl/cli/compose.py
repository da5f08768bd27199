"""`calmctl compose`: train the bridges between a frozen anchor and frozen augs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from calmctl.cli import options
from calmctl.cli.launching import launchable, run_or_plan
from calmctl.cli.loading import loading
from calmctl.cli.sweeping import sweepable

if TYPE_CHECKING:
    from calmctl.cli.configurations import ChosenPreset
    from calmctl.training.configs import ComposeConfig


@sweepable
@launchable
def compose(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("compose")] = None,
    anchor: options.Anchor = None,
    aug: options.Augs = None,
    data: options.Datasets = None,
    validation: options.Validation = None,
    init_from: options.InitFrom = None,
    marker: options.Markers = None,
    preset: Annotated[str | None, options.preset_of("compose")] = None,
    config_file: options.ConfigFile = None,
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
    chosen = options.chosen_preset("compose", preset, config_file, config_dir)
    config = composition_config(
        chosen,
        overrides,
        aug,
        marker,
        anchor=anchor,
        dataset=options.one_or_more(data),
        validation=options.one_or_more(validation),
        init_from=init_from,
        seed=seed,
        merge_bases=merge_bases or None,
        trust_remote_code=trust_remote_code or None,
    )
    config.check_inputs()  # before torch is loaded, which takes seconds
    with loading():
        from calmctl.training.compositions import composition_job

    run_or_plan(composition_job(config), chosen.label, out, dry_run, json)


def composition_config(
    chosen: ChosenPreset,
    overrides: list[str] | None,
    augs: list[str] | None,
    markers: list[str] | None,
    **given: object,
) -> ComposeConfig:
    """Return the settings of a composition: the preset, changed by the options and then by the overrides.

    Raises:
        UserError: see `load_config` and `as_markers`.
    """
    settings = options.with_options(overrides, **given)
    if augs:
        settings.insert(0, f"augs=[{','.join(options.quoted(model) for model in augs)}]")
    config: ComposeConfig = chosen.load(settings)
    return replace(config, markers={**config.markers, **options.as_markers(markers)})
