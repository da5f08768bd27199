"""`calmctl data`: build training and test data."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import options, output
from calmctl.escaping import visible
from calmctl.units import human_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from calmctl.cli.configurations import ChosenPreset
    from calmctl.runs.run import Run
    from data_builders.code.config import CodeDataConfig
    from data_builders.kv.config import KVDataConfig
    from data_builders.ntl.config import NTLDataConfig
    from data_builders.progress import Progress
    from data_builders.reasoning.config import ReasoningDataConfig

    DataConfig = KVDataConfig | NTLDataConfig | CodeDataConfig | ReasoningDataConfig

app = typer.Typer(help="Build training and test data.")

Tokenizer = Annotated[
    str | None,
    typer.Option("--tokenizer", help="Tokenizer to use (folder or hub id); the preset's by default."),
]
CorporaFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder that the preset's corpora and FLORES-200 are in."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes that build; one a processor by default. The data is the same."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="Folder of source files, hub dataset, `stdlib` or `site-packages`; may be repeated."),
]
Tests = Annotated[
    Path | None,
    typer.Option("--data", "--tests", help="Folder that holds humaneval, mbpp and codexglue, to keep them out."),
]


@app.command("kv")
def kv(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("data kv")] = None,
    preset: Annotated[str | None, options.preset_of("data kv")] = None,
    config_file: options.ConfigFile = None,
    tokenizer: Tokenizer = None,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Build the key-value arithmetic data: keys, training files for both models and for D_C, test set."""
    from data_builders.kv.build import build

    settings = options.with_options(overrides, seed=seed, tokenizer=tokenizer)
    chosen = options.chosen_preset("data kv", preset, config_file, config_dir)
    _build("data kv", chosen, settings, build, out, dry_run, json)


@app.command("ntl")
def ntl(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("data ntl")] = None,
    preset: Annotated[str | None, options.preset_of("data ntl")] = None,
    config_file: options.ConfigFile = None,
    data: CorporaFolder = None,
    tokenizer: Tokenizer = None,
    seed: options.Seed = None,
    workers: Workers = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Build the low-resource language data: text and translations for both models, D_C, validation, tokenizer."""
    from data_builders.ntl.build import build

    settings = options.with_options(overrides, seed=seed, data_folder=data, tokenizer=tokenizer)
    chosen = options.chosen_preset("data ntl", preset, config_file, config_dir)
    _build("data ntl", chosen, settings, partial(build, workers=workers), out, dry_run, json)


@app.command("code")
def code(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("data code")] = None,
    preset: Annotated[str | None, options.preset_of("data code")] = None,
    config_file: options.ConfigFile = None,
    source: Sources = None,
    tests: Tests = None,
    seed: options.Seed = None,
    workers: Workers = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Build the code data: code for m_A, prose for m_B, code/docstring pairs, D_C and what is held out."""
    from data_builders.code.build import build

    sources = tuple(source) if source else None
    settings = options.with_options(overrides, seed=seed, sources=sources, tests=tests)
    chosen = options.chosen_preset("data code", preset, config_file, config_dir)
    _build("data code", chosen, settings, partial(build, workers=workers), out, dry_run, json)


@app.command("reasoning")
def reasoning(
    out: options.Out,
    overrides: Annotated[list[str] | None, options.overrides_of("data reasoning")] = None,
    preset: Annotated[str | None, options.preset_of("data reasoning")] = None,
    config_file: options.ConfigFile = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the sets, laid out as `dataset` of LLM-Adapters.")
    ] = None,
    seed: options.Seed = None,
    config_dir: options.ConfigDir = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Build the training data of LLM-Adapters (commonsense or arithmetic), without any test set's questions."""
    from data_builders.reasoning.build import build

    settings = options.with_options(overrides, seed=seed, data_folder=data)
    chosen = options.chosen_preset("data reasoning", preset, config_file, config_dir)
    _build("data reasoning", chosen, settings, build, out, dry_run, json)


def _build(
    command: str,
    chosen: ChosenPreset,
    settings: list[str],
    build: Callable[[Any, Path, Progress], object],
    out: Path,
    dry_run: bool,
    json: bool,
) -> None:
    """Plan a data folder, or build it and print its files."""
    config: DataConfig = chosen.load(settings)
    if dry_run:
        _print_plan(command, chosen.label, out, config, json)
        return
    _run(out, config, lambda progress: build(config, out, progress))
    _print_files(out, json)


def _print_plan(command: str, preset: str, out: Path, config: DataConfig, as_json: bool) -> None:
    from calmctl.config import to_dict, to_yaml
    from calmctl.runs.run import Run
    from data_builders.checks import CHECKS

    existing = Run.look(out, kind="data", config=config)
    if existing is None or not existing.is_complete:
        CHECKS[command.removeprefix("data ")](config)
    plan = {"command": command, "preset": preset, "out": str(out), "config": to_dict(config)}
    output.print_json(plan) if as_json else print(visible(to_yaml(plan)), end="")


def _run(out: Path, config: DataConfig, build: Callable[[Progress], object]) -> None:
    """Build a data folder as a run, with progress on stderr."""
    from calmctl.cli.progress import watching
    from calmctl.runs.run import Run

    with (
        Run.start(out, kind="data", config=config, command=sys.argv, seed=config.seed) as run,
        watching({out.name: out}),
    ):
        build(_progress(run))
        if not run.is_complete:
            run.finish()


def _progress(run: Run) -> Progress:
    """Return the callbacks of a build: notes go to stderr, steps with an ETA to `progress.json`."""
    from calmctl.processes.parent import end_if_asked
    from data_builders.progress import Progress

    began: dict[str, tuple[float, int]] = {}

    def step(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, first = began.setdefault(stage, (now, done))
        left = (now - start) / (done - first) * (total - done) if done > first else None
        run.report_progress(stage, done, total, eta_seconds=left)

    def note(text: str) -> None:
        end_if_asked()
        output.note(text)

    return Progress(note, step)


def _print_files(out: Path, as_json: bool) -> None:
    """Print the manifest of a data folder, or a table of its files."""
    from data_builders.values import read_json

    manifest = read_json(out / "manifest.json")
    if as_json:
        output.print_json(manifest)
        return
    rows: list[tuple[Any, ...]] = [
        (name, entry["rows"], human_bytes(entry["bytes"])) for name, entry in manifest["files"].items()
    ]
    columns, statistics = ["file", "rows", "size"], manifest.get("statistics", {})
    if any("tokens_estimated" in entry for entry in statistics.values()):
        columns.append("tokens (estimate)")
        rows = [(*row, statistics.get(row[0], {}).get("tokens_estimated")) for row in rows]
    output.print_table(columns, rows, title=str(out))
