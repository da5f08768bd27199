"""`calmctl slurm`: write and submit the SLURM batch script of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from calmctl.cli import options, output
from calmctl.cli.sweeping import check_options

LAUNCH_OPTIONS = {"--nproc-per-node", "--nnodes", "--rdzv-endpoint"}


def slurm(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]... -- COMMAND...",
            help=f"{options.settings_help('slurm')} After `--` what follows `calmctl` in the command to run.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[str | None, options.preset_of("slurm")] = None,
    config_file: options.ConfigFile = None,
    script: Annotated[Path | None, typer.Option("--script", help="Write the batch script here.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it with sbatch.")] = False,
    config_dir: options.ConfigDir = None,
) -> None:
    """Write the SLURM batch script of a command, on stdout or to a file, and submit it if told to."""
    from calmctl.errors import UserError
    from calmctl.processes import slurm as cluster
    from data_builders.files import write_text

    words = command or []
    start = next((place for place, word in enumerate(words) if "=" not in word), len(words))
    config: cluster.SlurmConfig = options.chosen_preset("slurm", preset, config_file, config_dir).load(words[:start])
    name, parameters = _parsed(context.find_root(), words[start:])
    text = cluster.batch_script(config, words[start:], cluster.launch_options(config, name, parameters))
    if script is not None:
        write_text(script, text)
    elif submit:
        raise UserError("--submit needs --script FILE: what has been submitted should be there to look at")
    else:
        print(text, end="")
    if submit and script is not None:
        output.note(f"submitted {script} as job {cluster.submit(script)}")


def _parsed(root: Any, words: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse the command of a job and return its name and the values of all its options.

    Raises:
        UserError: the command is empty, needs no job, has launch options, which the job sets, or other options that
            exclude each other.
    """
    from calmctl.errors import UserError

    if not words:
        raise UserError("no command is given; write `calmctl slurm -- compose --anchor ...`")
    if shown := {"--help", "-h", "--version"} & set(words):
        raise UserError(f"{min(shown)}: that needs no job; leave it out")
    context, group, rest, names = root, cast(Any, root.command), words, list[str]()
    while hasattr(group, "resolve_command"):
        if not rest:
            raise UserError(f"calmctl {' '.join(names)}: missing command; choose from {', '.join(group.commands)}")
        name, group, rest = group.resolve_command(context, rest)
        names.append(name)
        context = type(root)(group, parent=context, info_name=name)
    parameters = group.make_context(names[-1], list(rest), parent=context.parent).params
    if given := sorted({word.partition("=")[0] for word in rest} & LAUNCH_OPTIONS):
        raise UserError(f"{given[0]}: that follows from nodes and gpus_per_node of the job; leave it out")
    if names[0] in ("slurm", "doctor"):
        raise UserError(f"calmctl {names[0]} runs where you are, not in a job")
    if parameters.get("dry_run"):
        raise UserError("--dry-run: a plan needs no job; leave it out, or run it here")
    if "multirun" in parameters:
        check_options(parameters["multirun"], parameters["jobs"], parameters)
    return " ".join(names), parameters
