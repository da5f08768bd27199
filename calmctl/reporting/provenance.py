"""Provenance in a report: command, seed, versions, hardware, and the time of each stage."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calmctl.reporting.document.page import Facts
from calmctl.reporting.document.tables import Column, Table, Text
from calmctl.reporting.values import number
from calmctl.units import human_bytes, human_seconds

UNKNOWN = "not recorded"


def reproduce_facts(
    run: Mapping[str, Any], seed: int | None, preset: str, git_commit: str | None, hardware: Mapping[str, Any]
) -> Facts:
    """Return the facts needed to repeat a run; `run` is the content of its `run.json`, empty if there is none."""
    versions = run.get("versions") or {}
    items = [
        ("command", command_line(run.get("command") or ())),
        ("seed", UNKNOWN if seed is None else str(seed)),
        ("preset", preset),
        ("commit", git_commit or UNKNOWN),
        *_hardware(hardware),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v) or UNKNOWN),
        ("started", str(run.get("started") or UNKNOWN)),
    ]
    return Facts(tuple(items), code=frozenset({"command", "commit"}))


def command_line(command: object) -> str:
    """Return a recorded command as one would type it, with the bare name of the program."""
    if not isinstance(command, list | tuple) or not command:
        return UNKNOWN
    program = Path(str(command[0])).name
    program = "calmctl" if program in ("__main__.py", "main.py") else program
    return shlex.join([program, *(str(argument) for argument in command[1:])])


def _hardware(hardware: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = []
    for name, value in hardware.items():
        if name.endswith("_bytes"):
            shown.append((name.removesuffix("_bytes"), human_bytes(number(value)) or UNKNOWN))
        elif isinstance(value, list):
            shown.append((name, ", ".join(map(str, value)) or "none"))
        elif value is not None:
            shown.append((name.replace("_", " "), str(value)))
    return shown or [("hardware", UNKNOWN)]


def seconds_table(seconds: Mapping[str, float]) -> Table:
    """Return a table of the time of each stage, with the total last."""
    stages = [(stage, value) for stage, value in seconds.items() if stage != "total"]
    if "total" in seconds:
        stages.append(("total", seconds["total"]))
    rows = tuple((Text(stage), Text(human_seconds(value) or UNKNOWN)) for stage, value in stages)
    return Table("Time per stage", (Column("stage", is_text=True), Column("time")), rows)
