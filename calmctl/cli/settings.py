"""`calmctl settings`: every setting of a command, with type, defaults and meaning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import options, output
from calmctl.cli.configurations import CONFIGURATIONS
from calmctl.errors import UserError

if TYPE_CHECKING:
    from calmctl.settings import Setting


def settings(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND [KEY]",
            help="The command (compose, data kv, ...) and, if you like, a setting or group of it (train.lr, bridge).",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", "-p", help="Also show its values.", show_default="the command's own"),
    ] = None,
    config_file: options.ConfigFile = None,
    config_dir: options.ConfigDir = None,
    json: options.Json = False,
) -> None:
    """Print the settings of a command: type, default, value in the preset, choices and meaning.

    Any of them can be changed at the end of the command (`train.lr=1e-3`), in a file (`--config`) or in a preset.
    """
    from calmctl.settings import below, list_settings

    command, key = _asked(words or [])
    chosen = options.chosen_preset(command, preset, config_file, config_dir)
    schema = chosen.configuration.schema
    known = {each.name: each.default for each in list_settings(schema, chosen.load(may_sweep=True))}
    found = below(schema, list(list_settings(schema)), key) if key else list(list_settings(schema))
    if json:
        output.print_json([_as_json(each, known[each.name]) for each in found])
        return
    source = str(config_file) if config_file else f"preset {chosen.name}"
    for setting in found:
        output.print_entry(setting.name, _facts(setting, known[setting.name], source), setting.meaning)


def _asked(words: list[str]) -> tuple[str, str]:
    """Return the command that the words begin with, and the key that follows.

    Raises:
        UserError: they begin with no command that has settings, or more than a key follows.
    """
    for count in (2, 1):
        command, rest = " ".join(words[:count]), words[count:]
        if command in CONFIGURATIONS and len(rest) <= 1:
            return command, "".join(rest)
    raise UserError(f"settings {' '.join(words)}: give a command, and at most one key: {', '.join(CONFIGURATIONS)}")


def _as_json(setting: Setting, value: object) -> dict[str, Any]:
    return asdict(setting) | {"preset": value}


def _facts(setting: Setting, value: object, source: str) -> str:
    """Return type and default in words, and the value in the preset or file if it is another."""
    if setting.is_group:
        return setting.type
    default = "has to be given" if setting.is_required else f"default {options.typed(setting.default)}"
    other = "" if value == setting.default else f"; {source}: {options.typed(value)}"
    return f"{setting.type}; {default}{other}"
