"""`calmctl report`: the report of a run, or the mean over the seeds of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output

_Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="A `calmctl reproduce kv` folder, or several that differ in their seed."),
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Several folders only: also write seeds.md and seeds.json here."),
]


def report(runs: _Runs, out: _Out = None, json: options.Json = False) -> None:
    """Write a run's report and print its table; of several runs, print mean and standard deviation."""
    from calmctl.errors import UserError

    if len(runs) > 1:
        _seeds(runs, out, json)
    elif out is not None:
        raise UserError(f"--out {out} is for several folders; the report of one is written into {runs[0]}")
    else:
        _single(runs[0], json)


def _single(run: Path, json: bool) -> None:
    from calmctl.files import read_json
    from calmctl.reporting.kv_report import terminal_table, write_kv_report

    written = write_kv_report(run)
    if json:
        output.print_json({"files": [str(path) for path in written], "table1": read_json(run / "table1.json")})
        return
    terminal_table(run)
    output.note(f"wrote {run / 'report.html'}, {run / 'report.md'} and {len(written) - 2} plots")


def _seeds(runs: list[Path], out: Path | None, json: bool) -> None:
    from calmctl.reporting.seeds import aggregate_seeds, write_seed_summary
    from calmctl.reporting.terminal import print_tables

    summary = aggregate_seeds(runs)
    if json:
        output.print_json(summary.to_dict())
    else:
        print_tables(*summary.tables())
    if out is not None:
        for path in write_seed_summary(summary, out):
            output.note(f"wrote {path}")
