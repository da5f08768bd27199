"""`calmctl reproduce`: a whole section of the paper, from data to report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import data, launching, options, output

if TYPE_CHECKING:
    from calmctl.experiments.reproduction import Section
    from calmctl.experiments.stages import Stage

Seeds = Annotated[
    int, typer.Option("--seeds", min=1, help="So many seeds, from --seed on, each in a folder of its own.")
]
Benchmarks = Annotated[
    Path | None, typer.Option("--data", help="Folder that holds the corpora, flores200 and mgsm: a folder of each.")
]

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
    seeds: Seeds = 1,
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
    from calmctl.experiments.kv import plan, preflight, reproduce_kv
    from calmctl.experiments.kv_ablations import ablate_kv, preflight_ablations, reproduction_stages
    from calmctl.experiments.kv_config import ReproduceKVConfig

    def configured(seed: int | None) -> ReproduceKVConfig:
        settings = options.with_options(overrides, preset=preset, seed=seed)
        return load_config(ReproduceKVConfig, f"reproduce/kv/{preset}", settings, config_dir)

    first = configured(seed)
    configs = {folder: configured(number) for number, folder in _folders(out, first.seed, seeds).items()}
    for folder, config in configs.items():
        if ablations:
            preflight_ablations(config, folder, nproc_per_node)
    if dry_run:
        for folder, config in configs.items():
            preflight(config, folder, nproc_per_node)
        stages = [
            stage
            for folder, config in configs.items()
            for stage in reproduction_stages(config, folder, ablations, nproc_per_node)
        ]
        shown = {"command": "reproduce kv", "out": str(out), "stages": _shown(stages)}
        output.print_plan({**shown, **plan(first)}, json)
        return
    running: dict[str, Path] = {}
    with watching(running):
        for folder, config in configs.items():
            reproduce_kv(config, folder, sys.argv, running, nproc_per_node)
            if ablations:
                ablate_kv(config, folder, sys.argv, running, nproc_per_node)
    _print_results(out, list(configs), json)


@app.command("ntl")
def ntl(
    out: options.Out,
    overrides: options.Overrides = None,
    preset: options.Preset = "tiny",
    benchmarks: Benchmarks = None,
    seed: options.Seed = None,
    seeds: Seeds = 1,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    nproc_per_node: launching.NprocPerNode = None,
) -> None:
    """Reproduce tables 2, 3 and 5: low-resource languages, with m_A, m_B, their composition and other methods."""
    from calmctl.config import load_config
    from calmctl.experiments.ntl import ReproduceNTLConfig, ntl_section

    def section(seed: int | None, folder: Path) -> Section:
        settings = options.with_options(overrides, preset=preset, seed=seed, benchmarks=benchmarks)
        return ntl_section(load_config(ReproduceNTLConfig, f"reproduce/ntl/{preset}", settings, config_dir), folder)

    _reproduce(out, seed, seeds, section, dry_run, json, nproc_per_node)


@app.command("code")
def code(
    out: options.Out,
    overrides: options.Overrides = None,
    preset: options.Preset = "tiny",
    source: data.Sources = None,
    tests: data.Tests = None,
    allow_code_execution: options.AllowCodeExecution = False,
    seed: options.Seed = None,
    seeds: Seeds = 1,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    nproc_per_node: launching.NprocPerNode = None,
) -> None:
    """Reproduce tables 4 and 5: code, with m_A, m_B, their composition and other methods."""
    from calmctl.config import load_config
    from calmctl.experiments.code import ReproduceCodeConfig, code_section

    given: dict[str, object] = {"benchmarks": tests, "allow_code_execution": allow_code_execution or None}
    given["data.sources"] = tuple(source) if source else None

    def section(seed: int | None, folder: Path) -> Section:
        settings = options.with_options(overrides, preset=preset, seed=seed, **given)
        return code_section(load_config(ReproduceCodeConfig, f"reproduce/code/{preset}", settings, config_dir), folder)

    _reproduce(out, seed, seeds, section, dry_run, json, nproc_per_node)


def _reproduce(
    out: Path,
    seed: int | None,
    seeds: int,
    section: Callable[[int | None, Path], Section],
    dry_run: bool,
    json: bool,
    nproc_per_node: str | None,
) -> None:
    """Plan or run a section on real text, for one seed or for several."""
    from calmctl.cli.progress import watching
    from calmctl.experiments.reproduction import preflight, reproduce, section_stages

    first = section(seed, out).config
    folders = _folders(out, first.seed, seeds)
    sections = {folder: section(number, folder) for number, folder in folders.items()}
    if dry_run:
        for folder, each in sections.items():
            preflight(each, folder, nproc_per_node)
        stages = [stage for folder, each in sections.items() for stage in section_stages(each, folder, nproc_per_node)]
        _print_section_plan(sections, {"out": str(out), "stages": _shown(stages)}, json)
        return
    running: dict[str, Path] = {}
    with watching(running):
        for folder, each in sections.items():
            reproduce(each, folder, sys.argv, running, nproc_per_node)
    _print_section(out, list(sections), json)


def _folders(out: Path, first: int, seeds: int) -> dict[int, Path]:
    """Return the folder of each seed: the one that was named, or one a seed in it."""
    from calmctl.errors import UserError
    from calmctl.runs.record import RUN_FILE

    if seeds == 1:
        return {first: out}
    if (out / RUN_FILE).exists():
        raise UserError(f"--seeds {seeds}: {out} holds a single run; choose another --out, which gets a folder a seed")
    return {seed: out / f"seed{seed}" for seed in range(first, first + seeds)}


def _shown(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    return [
        {"stage": stage.name, "needs": list(stage.needs), "command": f"calmctl {shlex.join(stage.command)}"}
        for stage in stages
    ]


def _print_section_plan(sections: Mapping[Path, Section], shown: dict[str, Any], json: bool) -> None:
    """Print the stages of all seeds, and what those of the first one come to."""
    from calmctl.cli.section_tables import print_section_plan
    from calmctl.experiments.planning.totals import plan_section
    from calmctl.experiments.reproduction import section_stages

    folder, section = next(iter(sections.items()))
    plan = plan_section(section, section_stages(section, folder))
    shown = {"command": f"reproduce {section.name}", "seeds": len(sections), **shown}
    if json:
        output.print_json({**shown, **plan})
        return
    output.print_plan(shown, json)
    print_section_plan(plan)


def _print_section(out: Path, folders: list[Path], json: bool) -> None:
    from calmctl.reporting.document.terminal import print_tables
    from calmctl.reporting.pooled import pool_sections, pooled_figures, pooled_tables, write_pooled
    from calmctl.reporting.report import measured, section_terminal_tables

    if len(folders) > 1:
        pooled = pool_sections(folders)
        write_pooled(pooled, out)
        if json:
            output.print_json(pooled_figures(pooled))
        else:
            print_tables(*pooled_tables(pooled))
    elif json:
        output.print_json(measured(out))
    else:
        section_terminal_tables(out)


def _print_results(out: Path, folders: list[Path], json: bool) -> None:
    from calmctl.reporting.document.terminal import print_tables
    from calmctl.reporting.kv_report import measured_tables, terminal_table
    from calmctl.reporting.seeds import aggregate_seeds, write_seed_summary

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
