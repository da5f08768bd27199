"""Options that commands share, with one spelling and help text for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calmctl.errors import UserError
from calmctl.opened_hydra import quoted

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
Anchor = Annotated[
    str | None, typer.Option("--anchor", help="The large, general model: a run, folder, GGUF file or hub id.")
]
Augs = Annotated[
    list[str] | None, typer.Option("--aug", help="The small, specialised model; may be given several times.")
]
Markers = Annotated[
    list[str] | None,
    typer.Option(
        "--marker",
        metavar="OURS=THEIRS",
        help="A special token of the anchor and the one that augs with tokenizers of their own read in its place.",
    ),
]
AllowDifferentBase = Annotated[
    bool,
    typer.Option("--allow-different-base", help="Load a composed model although its bases are not the recorded ones."),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the code that lies beside a model or tokenizer, if it needs it. Read it first.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="The task's data, a path or hub id; with several tasks, a folder that holds a folder of each."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", help="Only the first so many records (of each language, if there are several); 0 = all."),
]
Shots = Annotated[int | None, typer.Option("--shots", help="Worked examples before each question.")]
Languages = Annotated[str | None, typer.Option("--languages", help="Only these, separated by commas.")]
Against = Annotated[Path | None, typer.Option("--against", help="Run of the same task to compare with.")]
AllowCodeExecution = Annotated[
    bool, typer.Option("--allow-code-execution", help="Run the programs that the model writes, in a sandbox.")
]
Validation = Annotated[
    Path | None,
    typer.Option("--validation", help="File like --data to validate on; train.validation_share holds out a part."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the preset, in Hydra's syntax.", show_default=False),
]


def with_options(overrides: list[str] | None, **options: object) -> list[str]:
    """Return the options as overrides, followed by `overrides`, which therefore win; None adds no override."""
    given = [f"{key}={quoted(value)}" for key, value in options.items() if value is not None]
    return [*given, *(overrides or [])]


def as_markers(given: list[str] | None) -> dict[str, str]:
    """Parse `--marker`: special token of the anchor -> special token of the augs.

    Raises:
        UserError: a value is not of the form OURS=THEIRS.
    """
    pairs = [text.split("=") for text in given or []]
    if wrong := next((pair for pair in pairs if len(pair) != 2 or not all(pair)), None):
        raise UserError(
            f"--marker {'='.join(wrong)}: give two tokens, as '<|im_end|>=<end_of_turn>'; those with a `=` in them "
            "belong into a preset (markers:)"
        )
    return {ours: theirs for ours, theirs in pairs}


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split arguments into names and overrides (`key=value`, `~key`)."""
    overrides = [text for text in arguments if "=" in text or text.startswith("~")]
    return [text for text in arguments if text not in overrides], overrides


def task_options(
    shots: int | None, languages: str | None, against: Path | None, allow_code_execution: bool
) -> dict[str, object]:
    """Return the task options that were given, by the field names of the tasks."""
    chosen = None if languages is None else tuple(filter(None, (code.strip() for code in languages.split(","))))
    options = {"shots": shots, "languages": chosen, "against": against}
    options["allow_code_execution"] = allow_code_execution or None
    return {name: value for name, value in options.items() if value is not None}
