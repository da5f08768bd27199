"""`@sweepable` adds `--multirun` to a command: a run for each combination of settings, and their comparison."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import options, output
from calmctl.cli.launching import with_parameters
from calmctl.errors import CalmctlError, UserError

if TYPE_CHECKING:
    from calmctl.experiments.sweep import Sweep
    from calmctl.experiments.swept_runs import Outcome

_PANEL = "Several runs"
Multirun = Annotated[
    bool,
    typer.Option(
        "--multirun",
        "-m",
        help="A run below --out for each combination of values, such as train.lr=1e-4,3e-4 every=2,4.",
        rich_help_panel=_PANEL,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Runs at the same time (needs joblib's launcher).", rich_help_panel=_PANEL),
]
# What a run of the sweep does not share with it.
_OWN = {"context", "out", "overrides", "multirun", "jobs", "dry_run", "json"}
_SHOWN_FAILURES = 3


def sweepable(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--multirun` and `--jobs` to a command that trains; without them the command itself runs."""

    @functools.wraps(command)
    def sweep_or_run(context: typer.Context, multirun: bool, jobs: int | None, **arguments: Any) -> None:
        check_options(multirun, jobs, arguments)
        if multirun:
            _sweep(_sweep_of(context, jobs, arguments), arguments["dry_run"], arguments["json"])
        else:
            command(context=context, **arguments)

    return with_parameters(sweep_or_run, command, multirun=(Multirun, False), jobs=(Jobs, None))


def check_options(multirun: bool, jobs: int | None, arguments: Mapping[str, Any]) -> None:
    """Raise UserError for options of a command, with its arguments by name, that exclude each other."""
    overrides = arguments["overrides"] or []
    if jobs is not None and not multirun:
        raise UserError(f"--jobs {jobs} says how many runs of --multirun run at the same time; add --multirun")
    if multirun and ("TORCHELASTIC_RUN_ID" in os.environ or arguments["nnodes"] > 1):
        raise UserError(
            "--multirun starts one command for each run: leave torchrun and --nnodes out (--nproc-per-node gives each "
            "run several processes, hydra/launcher=submitit_slurm distributes the runs)"
        )
    if (jobs or 1) > 1 and arguments["nproc_per_node"]:
        raise UserError("--jobs and --nproc-per-node: several runs would take the same devices; leave one of them out")
    if jobs and (launcher := next((text for text in overrides if text.startswith("hydra/launcher=")), None)):
        raise UserError(f"--jobs {jobs} chooses joblib's launcher, {launcher} another one; leave one of them out")


def _sweep_of(context: typer.Context, jobs: int | None, arguments: Mapping[str, Any]) -> Sweep:
    """Return the sweep that a command line asks for."""
    from calmctl.experiments.sweep import Sweep

    words = context.command_path.split()[1:]
    chosen = options.chosen_preset(words[0], arguments["preset"], arguments["config_file"])
    return Sweep(
        (*words, *_shared_words(context)),
        chosen.configuration.schema,
        chosen.path,
        tuple(arguments["overrides"] or ()),
        arguments["out"],
        arguments["config_dir"],
        chosen.file,
        jobs,
    )


def _shared_words(context: typer.Context) -> list[str]:
    """Return the options and arguments of a command line that all runs of its sweep have."""
    words = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in _OWN or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words += [parameter.opts[0]] if value else []
        else:
            for each in value if isinstance(value, list | tuple) else [value]:
                words += [parameter.opts[0], str(each)]
    return words


def _sweep(sweep: Sweep, dry_run: bool, json: bool) -> None:
    from calmctl.cli.progress import watching
    from calmctl.experiments.swept_runs import RunningRuns
    from calmctl.reporting.compared_runs import compare
    from calmctl.runs.record import RUN_FILE, read_run

    runs = sweep.runs()
    plan = sweep.plan()
    if dry_run:
        chosen: object = runs if runs is not None else "chosen by the sweeper, one after another"
        output.print_plan({"out": str(sweep.out), "runs": chosen, "first run" if runs else "every run": plan}, json)
        return
    watched = RunningRuns(sweep.out, None if runs is None else len(runs))
    with watching(watched, watched):
        ended = sweep.start()
    names = dict.fromkeys(outcome.run for outcome in ended)
    done = [read_run(sweep.out / name) for name in names if (sweep.out / name / RUN_FILE).exists()]
    compared = compare(done, "validation_loss")
    if json:
        output.print_json(compared.records())
    elif done:
        output.print_comparison(compared)
    _report_failures(ended, sweep.out)


def _report_failures(ended: list[Outcome], out: Path) -> None:
    """Raise CalmctlError if runs have failed."""
    failed = {outcome.run: outcome.problem for outcome in ended if outcome.problem}
    if not failed:
        return
    said = [f"{name}: {problem}" for name, problem in list(failed.items())[:_SHOWN_FAILURES]]
    more = f"; and {len(failed) - len(said)} more, see {out / 'sweep'}" if len(failed) > len(said) else ""
    raise CalmctlError(f"{len(failed)} of {len(ended)} runs failed: {'; '.join(said)}{more}")
