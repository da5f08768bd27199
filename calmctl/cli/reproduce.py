"""`calmctl reproduce`: a whole section of the paper, from data to report."""

from __future__ import annotations

import shlex
import sys

import typer

from calmctl.cli import launching, options, output

app = typer.Typer(help="Reproduce a section of the paper: data, training, composition, evaluation, report.")


@app.callback()
def _group() -> None:
    """Reproduce a section of the paper: data, training, composition, evaluation, report."""


@app.command("kv")
def kv(
    out: options.Out,
    overrides: options.Overrides = None,
    preset: options.Preset = "tiny",
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    nproc_per_node: launching.NprocPerNode = None,
) -> None:
    """Reproduce table 1: key-value arithmetic with m_A, m_B, their composition and the controls."""
    from calmctl.cli.progress import watching
    from calmctl.config import load_config
    from calmctl.experiments.kv import KVExperiment, ReproduceKVConfig, plan, reproduce_kv
    from calmctl.files import read_json

    settings = options.with_options(overrides, preset=preset, seed=seed)
    config = load_config(ReproduceKVConfig, f"reproduce/kv/{preset}", settings, config_dir)
    experiment = KVExperiment(config, out, nproc_per_node)
    if dry_run:
        stages = [
            {"stage": stage.name, "needs": list(stage.needs), "command": f"calmctl {shlex.join(stage.command)}"}
            for stage in experiment.stages
        ]
        output.print_plan({"command": "reproduce kv", "out": str(out), "stages": stages, **plan(config)}, json)
        return
    with watching(experiment.running):
        reproduce_kv(config, out, experiment, sys.argv)
    if json:
        output.print_json(read_json(out / "table1.json"))
        return
    from calmctl.reporting.kv_report import terminal_table

    terminal_table(out)
