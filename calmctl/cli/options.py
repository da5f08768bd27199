"""Options that commands share, with one spelling and help text for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from calmctl.cli.configurations import CONFIGURATIONS, ChosenPreset
from calmctl.errors import UserError
from calmctl.opened_hydra import quoted


def preset_of(command: str) -> Any:
    """Return the option that chooses a preset of a command (a key of CONFIGURATIONS)."""
    default = CONFIGURATIONS[command].preset
    return typer.Option("--preset", "-p", show_default=default, help="Which preset; `calmctl ls presets` lists them.")


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="YAML file of settings, in place of a preset; a run's config.yaml, say."
    ),
]
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
InitFrom = Annotated[
    str | None,
    typer.Option(
        "--init-from",
        metavar="RUN",
        help="Begin with trained bridges (adapters) of a run, model folder or checkpoint, not with new ones.",
    ),
]
AnchorElsewhere = Annotated[
    str | None,
    typer.Option("--anchor", help="Where the anchor of a composed model is, if not where the model says."),
]
AugsElsewhere = Annotated[
    list[str] | None,
    typer.Option("--aug", help="Where its aug is; with several augs, all in their order."),
]
Temperature = Annotated[float, typer.Option("--temperature", help="0 = greedy; above, sampling.", min=0.0)]
TopP = Annotated[float, typer.Option("--top-p", help="Nucleus of sampling.", min=0.0, max=1.0)]
SamplingSeed = Annotated[int, typer.Option("--seed", help="Seed of sampling.", min=0, max=2**32 - 1)]
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
Sort = Annotated[
    str,
    typer.Option(
        "--sort",
        metavar="COLUMN",
        help="Best first: validation_loss, loss, a setting (lr), a figure (kv.kv_math); -COLUMN: last first.",
    ),
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Also write all columns, with exact numbers, to this file.")]
Datasets = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="PATH|ID",
        help="What to train on: a JSONL, JSON, CSV, TSV or Parquet file, a pattern, a folder of files or of a saved "
        "dataset, or one of the hub (ID@REVISION:SPLIT). Again for more data; data_weights=[0.7,0.3] gives shares.",
    ),
]
Validation = Annotated[
    list[str] | None,
    typer.Option(
        "--validation",
        metavar="PATH|ID",
        help="Data like --data to validate on; train.validation_share holds out a part.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the preset, in Hydra's syntax.", show_default=False),
]


def overrides_of(command: str) -> Any:
    """Return the argument that changes settings of a command (a key of CONFIGURATIONS)."""
    return typer.Argument(metavar="KEY=VALUE", help=settings_help(command), show_default=False)


def settings_help(command: str) -> str:
    """Return how the settings of a command are changed, which groups they have, and where they are explained."""
    groups = CONFIGURATIONS[command].groups
    named = f"; groups of settings: {groups}" if groups else ""
    return f"Changes to settings, in Hydra's syntax{named}. `calmctl settings {command}` explains all of them."


def chosen_preset(
    command: str, preset: str | None = None, file: Path | None = None, config_dir: Path | None = None
) -> ChosenPreset:
    """Return what the settings of a command begin with: a given preset or file, or the command's own preset.

    Raises:
        UserError: a file of settings is given as well.
    """
    if preset is not None and file is not None:
        raise UserError(
            f"--preset {preset} and --config {file}: give one of them; a file that begins with "
            f"`defaults: [{preset}@_here_, _self_]` adds to that preset"
        )
    configuration = CONFIGURATIONS[command]
    return ChosenPreset(configuration, preset or configuration.preset, file, config_dir)


def with_options(overrides: list[str] | None, **options: object) -> list[str]:
    """Return the options as overrides, followed by `overrides`, which therefore win; None adds no override."""
    given = [f"{key}={quoted(value)}" for key, value in options.items() if value is not None]
    return [*given, *(overrides or [])]


def one_or_more(given: list[str] | None) -> str | tuple[str, ...] | None:
    """Return sources of data as a setting: the only one, or all of several; None if none is given."""
    names = tuple(str(Path(name)) if os.path.exists(name) else name for name in given or ())
    return names if len(names) > 1 else (names[0] if names else None)


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


def as_columns(given: list[str] | None) -> dict[str, str]:
    """Parse `--column`: our name of a column -> its name in the data.

    Raises:
        UserError: a value is not of the form OURS=THEIRS.
    """
    pairs = [text.partition("=") for text in given or []]
    if wrong := next((pair for pair in pairs if not all(pair)), None):
        raise UserError(f"--column {''.join(wrong)}: give two names, as prompt=question")
    return {ours: theirs for ours, _, theirs in pairs}


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


def typed(value: object) -> str:
    """Return a setting's value as it is typed, but for line breaks, which are shown as `\\n`."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{typed(item)}' for name, item in value.items())}}}"
    return value if isinstance(value, str) and value.replace("-", "").isalnum() else quoted(value).replace("\n", "\\n")
