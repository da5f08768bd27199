"""`calmctl reproduce`: a whole section of the paper, from data to report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

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
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="So many seeds, from --seed on, each in a folder of its own.")
    ] = 1,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Also table 5: other methods at equal size, and one change at a time.")
    ] = False,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    nproc_per_node: launching.NprocPerNode = None,
) -> None:
    """Reproduce table 1: key-value arithmetic with m_A, m_B, their composition and the controls."""
    from calmctl.cli.progress import watching
    from calmctl.config import load_config
    from calmctl.experiments.kv import plan, reproduce_kv
    from calmctl.experiments.kv_ablations import ablate_kv, reproduction_stages
    from calmctl.experiments.kv_config import ReproduceKVConfig
    from calmctl.experiments.kv_variants import check_ablations

    def configured(seed: int | None) -> ReproduceKVConfig:
        settings = options.with_options(overrides, preset=preset, seed=seed)
        return load_config(ReproduceKVConfig, f"reproduce/kv/{preset}", settings, config_dir)

    first = configured(seed)
    if seeds == 1:
        configs = {out: first}
    else:
        configs = {out / f"seed{number}": configured(number) for number in range(first.seed, first.seed + seeds)}
    if ablations:
        check_ablations(first)
    if dry_run:
        stages = [
            {"stage": stage.name, "needs": list(stage.needs), "command": f"calmctl {shlex.join(stage.command)}"}
            for folder, config in configs.items()
            for stage in reproduction_stages(config, folder, ablations, nproc_per_node)
        ]
        output.print_plan({"command": "reproduce kv", "out": str(out), "stages": stages, **plan(first)}, json)
        return
    running: dict[str, Path] = {}
    with watching(running):
        for folder, config in configs.items():
            reproduce_kv(config, folder, sys.argv, running, nproc_per_node)
            if ablations:
                ablate_kv(config, folder, sys.argv, running, nproc_per_node)
    _print_results(out, list(configs), json)


def _print_results(out: Path, folders: list[Path], json: bool) -> None:
    from calmctl.reporting.kv_report import measured_tables, terminal_table
    from calmctl.reporting.seeds import aggregate_seeds, write_seed_summary
    from calmctl.reporting.terminal import print_tables

    if len(folders) > 1:
        summary = aggregate_seeds(folders)
        write_seed_summary(summary, out)
        if json:
            output.print_json(summary.to_dict())
        else:
            print_tables(*summary.tables())
    elif json:
        tables = measured_tables(out)
        output.print_json({**tables.pop("table1"), **tables})
    else:
        terminal_table(out)
