"""`calmctl show`: facts about one run, or how augs read a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import options, output
from calmctl.cli.compose import composition_config
from calmctl.errors import UserError
from calmctl.escaping import visible
from calmctl.units import human_bytes, human_seconds

if TYPE_CHECKING:
    from calmctl.runs.run import RunInfo

_SHOWN_LOG_ROWS = 5


def show(
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="A run; with --text any composed model.", show_default=False),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Show how the augs of a composed model read this; `-` reads it from stdin."),
    ] = None,
    anchor: options.Anchor = None,
    aug: options.Augs = None,
    marker: options.Markers = None,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Show the status, settings, metrics and last losses of a run, or how augs read a text.

    With --text and a composed model, or --anchor and --aug (and settings of `calmctl compose`, such as
    segmentation=chunks, in place of RUN): what each aug reads when the anchor stands at each of its tokens.
    """
    if anchor or aug or text is not None:
        _show_reading(given or [], text, anchor, aug or [], marker, trust_remote_code, json)
        return
    if not given or len(given) > 1:
        raise UserError("give one run: `calmctl show RUN`, or see `calmctl show --help`")
    _show_run(Path(given[0]), json)


def _show_reading(
    given: list[str],
    text: str | None,
    anchor: str | None,
    augs: list[str],
    markers: list[str] | None,
    trust_remote_code: bool,
    json: bool,
) -> None:
    """Print how augs read a text."""
    from calmctl.cli.reading_table import print_reading, reading_as_json
    from calmctl.modeling.bases.sources import quiet_libraries
    from calmctl.modeling.tokenizers.readings import reading_of_model, reading_of_parts

    if text is None:
        raise UserError('give --text "..." to show how an aug reads it (`--text -` reads it from stdin)')
    if text == "-":
        text = sys.stdin.read()
    quiet_libraries()
    if anchor and augs:
        trusted = trust_remote_code or None
        chosen = options.chosen_preset("compose")
        config = composition_config(chosen, given, augs, markers, anchor=anchor, trust_remote_code=trusted)
        how = (config.segmentation, config.markers, config.trust_remote_code)
        reading = reading_of_parts(config.anchor, config.augs, text, *how)
    elif anchor or augs or len(given) != 1:
        raise UserError("give one composed model (`calmctl show MODEL --text ...`), or --anchor MODEL and --aug MODEL")
    else:
        reading = reading_of_model(given[0], text, trust_remote_code)
    if json:
        output.print_json(reading_as_json(reading))
        return
    print_reading(reading)


def _show_run(run: Path, json: bool) -> None:
    from calmctl.runs.run import read_run

    info = read_run(run)
    if json:
        output.print_json(_as_json(info))
        return
    output.print_facts(_key_facts(info))
    config = _config_text(info)
    if config:
        print("\nconfiguration")
        print(visible("\n".join(f"  {line}" for line in config.split("\n"))))
    _print_progress(info)
    _print_metrics(info.metrics())
    _print_log(info.log())


def _as_json(info: RunInfo) -> dict[str, Any]:
    from data_builders.values import read_yaml

    path = info.path / "config.yaml"
    return {
        "path": str(info.path),
        "status": info.status,
        "run": info.facts,
        "config": read_yaml(path) if path.exists() else None,
        "progress": info.progress(),
        "metrics": info.metrics(),
        "last_log_rows": info.log()[-_SHOWN_LOG_ROWS:],
    }


def _config_text(info: RunInfo) -> str | None:
    from data_builders.files import read_text

    path = info.path / "config.yaml"
    return read_text(path) if path.exists() else None


def _key_facts(info: RunInfo) -> dict[str, object]:
    from calmctl.reporting.provenance import command_line

    facts = info.facts
    hardware = facts.get("hardware") or {}
    versions = facts.get("versions") or {}
    commit = facts.get("git_commit")
    return {
        "run": info.path,
        "kind": info.kind,
        "status": info.status,
        "error": facts.get("error"),
        "command": command_line(facts.get("command")),
        "seed": facts.get("seed"),
        "started": facts.get("started"),
        "finished": facts.get("finished"),
        "took": human_seconds(facts.get("seconds")),
        "peak memory": human_bytes(facts.get("peak_memory_bytes")),
        "peak GPU memory": human_bytes(facts.get("peak_gpu_memory_bytes")),
        "steps": _count(facts.get("steps")),
        "passes over the data": facts.get("passes_over_the_data"),
        "extended from": ", ".join(f"{k}={v:g}" for each in facts.get("extended") or [] for k, v in each.items()),
        "trainable parameters": _count(facts.get("trainable_parameters")),
        "total parameters": _count(facts.get("total_parameters")),
        "hardware": ", ".join([str(hardware.get("cpu") or ""), *hardware.get("gpus", [])]).strip(", "),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "commit": commit,
    }


def _count(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _print_progress(info: RunInfo) -> None:
    progress = info.progress()
    if progress is None or info.is_complete:
        return
    eta = human_seconds(progress.get("eta_seconds"))
    left = f", {eta} left" if eta else ""
    print(visible(f"\nprogress\n  {progress['stage']}: {progress['step']} of {progress['total']}{left}"))


def _print_metrics(metrics: dict[str, Any] | None) -> None:
    if metrics is None:
        return
    print("\nmetrics")
    values = metrics.get("metrics", metrics)
    shown = {f"  {name}": _number(value) for name, value in values.items() if isinstance(value, int | float)}
    output.print_facts(shown)


def _print_log(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    last = rows[-_SHOWN_LOG_ROWS:]
    columns = list(dict.fromkeys(column for row in last for column in row))
    output.print_table(columns, [[_number(row.get(column)) for column in columns] for row in last], title="last steps")


def _number(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
