"""Options that commands share, so that they are spelled and explained the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

Preset = Annotated[str, typer.Option("--preset", "-p", help="Which preset to use; `calmctl ls presets` lists them.")]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder for the results; the same command resumes or skips what is there."),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="Folder with presets of your own, searched before the packaged ones."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Random seed; the preset's by default.")]
AllowDifferentBase = Annotated[
    bool,
    typer.Option("--allow-different-base", help="Load a composed model although its bases are not the recorded ones."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the preset, in Hydra's syntax.", show_default=False),
]


def with_options(overrides: list[str] | None, **options: object) -> list[str]:
    """Return the overrides with options added as settings; an override on the command line wins over none.

    An option that was not given (None) adds nothing.
    """
    given = [f"{key}={quoted(value)}" for key, value in options.items() if value is not None]
    return [*given, *(overrides or [])]


def quoted(value: object) -> str:
    """Quote text so that Hydra takes it literally, whatever characters it holds."""
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    # Inside quotes Hydra reads a backslash as one unless a quote follows, and `${` as an interpolation.
    text = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), str(value))
    return "'" + text.replace("${", "\\${") + "'"
