"""`calmctl baseline`: train a method to compare a composition with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calmctl.baselines.options import METHODS
from calmctl.cli import options
from calmctl.cli.launching import launchable, run_or_plan
from calmctl.cli.loading import loading
from calmctl.cli.sweeping import sweepable

if TYPE_CHECKING:
    from calmctl.baselines.configs import BaselineConfig


@sweepable
@launchable
def baseline(
    method: Annotated[str, typer.Argument(metavar="METHOD", help=f"{', '.join(METHODS[:-1])} or {METHODS[-1]}.")],
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("baseline")] = None,
    anchor: Annotated[
        str | None,
        typer.Option("--anchor", help="The model to adapt (full: to train): a run, folder, GGUF file or hub id."),
    ] = None,
    data: options.Datasets = None,
    validation: options.Validation = None,
    init_from: options.InitFrom = None,
    match: Annotated[
        Path | None, typer.Option("--match", help="Run whose number of trainable parameters it gets.")
    ] = None,
    parameters: Annotated[
        int | None, typer.Option("--parameters", help="Number of trainable parameters it gets.", min=1)
    ] = None,
    preset: Annotated[str | None, options.preset_of("baseline")] = None,
    config_file: options.ConfigFile = None,
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
    settings = options.with_options(
        overrides, method=method, anchor=anchor, dataset=options.one_or_more(data),
        validation=options.one_or_more(validation), init_from=init_from, match=match, parameters=parameters, seed=seed,
        merge=merge or None, trust_remote_code=trust_remote_code or None,
    )  # fmt: skip
    chosen = options.chosen_preset("baseline", preset, config_file, config_dir)
    config: BaselineConfig = chosen.load(settings)
    config.check_inputs()  # before torch is loaded, which takes seconds
    with loading():
        from calmctl.baselines.training import baseline_job

    run_or_plan(baseline_job(config), chosen.label, out, dry_run, json)
