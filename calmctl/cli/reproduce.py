"""`calmctl reproduce`: a whole experiment of the paper, from data to report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import data, launching, options, output
from calmctl.cli.loading import loading

if TYPE_CHECKING:
    from calmctl.cli.configurations import ChosenPreset
    from calmctl.experiments.reproduction import Experiment
    from calmctl.experiments.stage import Stage

Seeds = Annotated[
    int, typer.Option("--seeds", min=1, help="So many seeds, from --seed on, each in a folder of its own.")
]
Benchmarks = Annotated[
    Path | None, typer.Option("--data", help="Folder that holds the corpora, flores200 and mgsm: a folder of each.")
]

app = typer.Typer(help="Reproduce an experiment of the paper: data, training, composition, evaluation, report.")


@app.command("kv")
def kv(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("reproduce kv")] = None,
    preset: Annotated[str | None, options.preset_of("reproduce kv")] = None,
    config_file: options.ConfigFile = None,
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
    with loading():
        from calmctl.experiments.kv import kv_experiment

    chosen = options.chosen_preset("reproduce kv", preset, config_file, config_dir)
    experiment = _experiment_of(kv_experiment, chosen, overrides, {"ablate": ablations or None})
    _reproduce(out, seed, seeds, experiment, dry_run, json, nproc_per_node)


@app.command("ntl")
def ntl(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("reproduce ntl")] = None,
    preset: Annotated[str | None, options.preset_of("reproduce ntl")] = None,
    config_file: options.ConfigFile = None,
    benchmarks: Benchmarks = None,
    seed: options.Seed = None,
    seeds: Seeds = 1,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    nproc_per_node: launching.NprocPerNode = None,
) -> None:
    """Reproduce tables 2, 3 and 5: low-resource languages, with m_A, m_B, their composition and other methods."""
    with loading():
        from calmctl.experiments.ntl import ntl_experiment

    chosen = options.chosen_preset("reproduce ntl", preset, config_file, config_dir)
    experiment = _experiment_of(ntl_experiment, chosen, overrides, {"benchmarks": benchmarks})
    _reproduce(out, seed, seeds, experiment, dry_run, json, nproc_per_node)


@app.command("code")
def code(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("reproduce code")] = None,
    preset: Annotated[str | None, options.preset_of("reproduce code")] = None,
    config_file: options.ConfigFile = None,
    source: data.Sources = None,
    benchmarks: Annotated[
        Path | None,
        typer.Option("--data", "--tests", help="Folder that holds humaneval, mbpp and codexglue."),
    ] = None,
    allow_code_execution: options.AllowCodeExecution = False,
    seed: options.Seed = None,
    seeds: Seeds = 1,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    nproc_per_node: launching.NprocPerNode = None,
) -> None:
    """Reproduce tables 4 and 5: code, with m_A, m_B, their composition and other methods."""
    with loading():
        from calmctl.experiments.code import code_experiment

    given: dict[str, object] = {"benchmarks": benchmarks, "allow_code_execution": allow_code_execution or None}
    given["data.sources"] = tuple(source) if source else None
    chosen = options.chosen_preset("reproduce code", preset, config_file, config_dir)
    experiment = _experiment_of(code_experiment, chosen, overrides, given)
    _reproduce(out, seed, seeds, experiment, dry_run, json, nproc_per_node)


@app.command("adapters")
def adapters(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("reproduce adapters")] = None,
    preset: Annotated[str | None, options.preset_of("reproduce adapters")] = None,
    config_file: options.ConfigFile = None,
    anchor: Annotated[str | None, typer.Option("--anchor", help="The model that gets adapters.")] = None,
    aug: Annotated[str | None, typer.Option("--aug", help="A specialist to compose it with, beside adapters.")] = None,
    sets: Annotated[
        Path | None, typer.Option("--data", help="Folder `dataset` of LLM-Adapters: training and test sets.")
    ] = None,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Also the studies of where adapters sit and how large they are.")
    ] = False,
    seed: options.Seed = None,
    seeds: Seeds = 1,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    nproc_per_node: launching.NprocPerNode = None,
) -> None:
    """Reproduce LLM-Adapters: adapters, fine-tuning and composition on its reasoning sets, beside its tables."""
    with loading():
        from calmctl.experiments.adapters import adapters_experiment

    given: dict[str, object] = {"benchmarks": sets, "ablate": ablations or None}
    given |= {"anchor.base": anchor, "aug.base": aug}
    chosen = options.chosen_preset("reproduce adapters", preset, config_file, config_dir)
    experiment = _experiment_of(adapters_experiment, chosen, overrides, given)
    _reproduce(out, seed, seeds, experiment, dry_run, json, nproc_per_node)


def _experiment_of(
    experiment: Callable[[Any, Path], Experiment],
    chosen: ChosenPreset,
    overrides: list[str] | None,
    given: Mapping[str, object],
) -> Callable[[int | None, Path], Experiment]:
    """Return a function that sets up the experiment with a seed (None = the preset's) in a folder."""

    def with_seed(seed: int | None, folder: Path) -> Experiment:
        preset = None if chosen.file else chosen.name
        return experiment(chosen.load(options.with_options(overrides, preset=preset, seed=seed, **given)), folder)

    return with_seed


def _reproduce(
    out: Path,
    seed: int | None,
    seeds: int,
    experiment: Callable[[int | None, Path], Experiment],
    dry_run: bool,
    json: bool,
    nproc_per_node: str | None,
) -> None:
    """Plan or run an experiment, for one seed or several."""
    from calmctl.cli.progress import watching
    from calmctl.cli.report import print_reproduction, print_seeds
    from calmctl.experiments.reproduction import experiment_stages, preflight, reproduce
    from calmctl.experiments.stages import Progress

    first = experiment(seed, out)
    folders = _folders(out, first.config.seed, seeds)
    experiments = {folder: first if folder == out else experiment(number, folder) for number, folder in folders.items()}
    if dry_run:
        for folder, each in experiments.items():
            preflight(each, folder, nproc_per_node)
        stages = [
            stage for folder, each in experiments.items() for stage in experiment_stages(each, folder, nproc_per_node)
        ]
        _print_plan(experiments, {"out": str(out), "stages": _shown(stages)}, json)
        return
    progress = Progress([stage for folder, each in experiments.items() for stage in experiment_stages(each, folder)])
    with watching(progress.running, progress):
        for folder, each in experiments.items():
            reproduce(each, folder, sys.argv, progress, nproc_per_node)
    if len(experiments) > 1:
        print_seeds(list(experiments), out, json)
    else:
        print_reproduction(out, json)


def _folders(out: Path, first: int, seeds: int) -> dict[int, Path]:
    """Return seed -> folder: `out` itself for one seed, else a subfolder per seed."""
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


def _print_plan(experiments: Mapping[Path, Experiment], shown: dict[str, Any], json: bool) -> None:
    """Print the stages of all seeds, and the cost estimate of the first seed."""
    from calmctl.cli.plan_tables import print_experiment_plan
    from calmctl.experiments.planning.totals import plan_experiment
    from calmctl.experiments.reproduction import experiment_stages

    folder, experiment = next(iter(experiments.items()))
    plan = plan_experiment(experiment, experiment_stages(experiment, folder))
    shown = {"command": f"reproduce {experiment.name}", "seeds": len(experiments), **shown}
    if json:
        output.print_json({**shown, **plan})
        return
    output.print_plan(shown, json)
    print_experiment_plan(plan)
