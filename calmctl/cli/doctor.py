"""`calmctl doctor`: check this machine, or whether an anchor and augs can be composed."""

from __future__ import annotations

from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.compose import composition_config
from calmctl.errors import UserError


def doctor(
    overrides: options.Overrides = None,
    anchor: options.Anchor = None,
    aug: options.Augs = None,
    marker: options.Markers = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="PATH|ID", help="With --anchor and --aug: how augs read this training data."),
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Check this machine, or, with --anchor and --aug, whether models can be composed.

    The machine: Python, packages, torch, GPUs, memory and disk; exit 1 if something required is missing.

    A composition (settings of `calmctl compose` apply): whether each pair works, how each aug's tokenizer differs and
    how the aug will read; exit 1 if a pair is refused. No weights are loaded.
    """
    from dataclasses import asdict

    from calmctl.diagnosis import diagnose

    if anchor and aug:
        from calmctl.training.pairs import pair_checks

        trusted = trust_remote_code or None
        config = composition_config(
            options.chosen_preset("compose"),
            overrides,
            aug,
            marker,
            anchor=anchor,
            dataset=options.one_or_more(data),
            trust_remote_code=trusted,
        )
        checks = list(pair_checks(config))
    elif anchor or aug or marker or data or overrides:
        raise UserError("give --anchor MODEL and --aug MODEL, or nothing to check this machine")
    else:
        checks = diagnose()
    is_healthy = all(check.status not in ("missing", "refused") for check in checks)
    if json:
        output.print_json({"ok": is_healthy, "checks": [asdict(check) for check in checks]})
    else:
        output.print_table(["check", "status", "detail"], [(c.name, c.status, c.detail) for c in checks])
    if not is_healthy:
        said = "a pair cannot be composed; see the lines marked `refused`"
        if not anchor:
            said = "something required is missing; see the lines marked `missing`"
        output.note(f"calmctl: {said}")
        raise typer.Exit(1)
