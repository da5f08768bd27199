"""`calmctl train`: train an anchor or an aug, from scratch or from an existing model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from calmctl.cli import options
from calmctl.cli.launching import launchable, run_or_plan
from calmctl.cli.loading import loading
from calmctl.cli.sweeping import sweepable

if TYPE_CHECKING:
    from calmctl.training.configs import TrainConfig

app = typer.Typer(help="Train a model from scratch, or an existing one further.")

Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="Tokenizer of a model from scratch (folder, GGUF file or hub id).")
]
Base = Annotated[str | None, typer.Option("--base", help="Model to train further: a run, folder, GGUF file or hub id.")]


@app.command("aug", help="Train the aug (m_A): the small model that has what the anchor lacks.")
@app.command("anchor", help="Train the anchor (m_B): the large, general model.")
@sweepable
@launchable
def train(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("train")] = None,
    preset: Annotated[str | None, options.preset_of("train")] = None,
    config_file: options.ConfigFile = None,
    data: options.Datasets = None,
    validation: options.Validation = None,
    tokenizer: Tokenizer = None,
    base: Base = None,
    trust_remote_code: options.TrustRemoteCode = False,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Train a model; anchor and aug differ in their presets only."""
    settings = options.with_options(
        overrides,
        dataset=options.one_or_more(data),
        validation=options.one_or_more(validation),
        tokenizer=tokenizer,
        base=base,
        seed=seed,
        trust_remote_code=trust_remote_code or None,
    )
    chosen = options.chosen_preset("train", preset, config_file, config_dir)
    config: TrainConfig = chosen.load(settings)
    config.check_inputs()  # before torch is loaded, which takes seconds
    with loading():
        from calmctl.training.whole_models import training_job

    run_or_plan(training_job(config), chosen.label, out, dry_run, json)
