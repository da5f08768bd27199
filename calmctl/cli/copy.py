"""`calmctl copy`: start a preset of one's own from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.configurations import group_of


def copy(
    preset: Annotated[
        str,
        typer.Argument(metavar="PRESET", help="What to copy, such as compose/default; `calmctl ls presets` lists all."),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file, such as my/compose/mine.yaml.")],
    config_dir: options.ConfigDir = None,
    json: options.Json = False,
) -> None:
    """Copy a preset to a file of your own, and print the command that runs it.

    In a folder named after the command (my/compose/mine.yaml) it is a preset, chosen by --config-dir and --preset;
    anywhere else it is a file of settings, chosen by --config.
    """
    from calmctl.presets import copy_preset

    command = copy_preset(preset, file, group_of(preset), config_dir)
    if json:
        output.print_json({"file": str(file), "command": command})
    else:
        print(command)
