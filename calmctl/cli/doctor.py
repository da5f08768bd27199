"""`calmctl doctor`: can this machine run calmctl, and what will it use."""

from __future__ import annotations

import typer

from calmctl.cli import options, output


def doctor(json: options.Json = False) -> None:
    """Check Python, packages, torch, GPUs, memory and disk; exit 1 if something required is missing."""
    from dataclasses import asdict

    from calmctl.diagnosis import diagnose

    checks = diagnose()
    is_healthy = all(check.status != "missing" for check in checks)
    if json:
        output.print_json({"ok": is_healthy, "checks": [asdict(check) for check in checks]})
    else:
        output.print_table(["check", "status", "detail"], [(c.name, c.status, c.detail) for c in checks])
    if not is_healthy:
        output.note("calmctl: something required is missing; see the lines marked `missing`")
        raise typer.Exit(1)
