"""`calmctl slurm`: run any command on the GPUs of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output


def slurm(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]... -- COMMAND...",
            help="Changes to the preset, then what follows `calmctl` in the command to run.",
            show_default=False,
        ),
    ] = None,
    preset: options.Preset = "default",
    script: Annotated[Path | None, typer.Option("--script", help="Write the batch script here.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it with sbatch.")] = False,
    config_dir: options.ConfigDir = None,
) -> None:
    """Write the SLURM batch script of a command, on stdout or to a file, and submit it if told to."""
    from calmctl.config import load_config
    from calmctl.errors import UserError
    from calmctl.files import write_text
    from calmctl.training import slurm as cluster

    words = command or []
    start = next((place for place, word in enumerate(words) if "=" not in word), len(words))
    config = load_config(cluster.SlurmConfig, f"slurm/{preset}", words[:start], config_dir)
    text = cluster.batch_script(config, words[start:])
    if script is not None:
        write_text(script, text)
    elif submit:
        raise UserError("--submit needs --script FILE: what has been submitted should be there to look at")
    else:
        print(text, end="")
    if submit and script is not None:
        output.note(f"submitted {script} as job {cluster.submit(script)}")
