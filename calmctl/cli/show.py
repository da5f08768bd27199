"""`calmctl show`: what is known about one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import options, output
from calmctl.escaping import visible

if TYPE_CHECKING:
    from calmctl.runs import RunInfo

_SHOWN_LOG_ROWS = 5


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")], json: options.Json = False
) -> None:
    """Show the status, settings, metrics and last losses of a run."""
    from calmctl.runs import read_run

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
    from calmctl.files import read_yaml

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
    from calmctl.files import read_text

    path = info.path / "config.yaml"
    return read_text(path) if path.exists() else None


def _key_facts(info: RunInfo) -> dict[str, object]:
    facts = info.facts
    hardware = facts.get("hardware") or {}
    versions = facts.get("versions") or {}
    commit = facts.get("git_commit")
    return {
        "run": info.path,
        "kind": info.kind,
        "status": info.status,
        "error": facts.get("error"),
        "command": " ".join(facts.get("command") or []),
        "seed": facts.get("seed"),
        "started": facts.get("started"),
        "finished": facts.get("finished"),
        "took": output.human_seconds(facts.get("seconds")),
        "peak memory": output.human_bytes(facts.get("peak_memory_bytes")),
        "peak GPU memory": output.human_bytes(facts.get("peak_gpu_memory_bytes")),
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
    eta = output.human_seconds(progress.get("eta_seconds"))
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
