"""`calmctl report`: the report of a run, the mean over the seeds of several, or what trainings cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output

_Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...", help="A `calmctl reproduce kv` folder, several that differ in their seed, or trainings."
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Also write the table of several folders, or of trainings, here."),
]


def report(runs: _Runs, out: _Out = None, json: options.Json = False) -> None:
    """Write a run's report and print its table; several: mean and standard deviation; trainings: what they cost."""
    from calmctl.errors import UserError
    from calmctl.reporting.cost_table import is_training

    if is_training(runs[0]):
        _costs(runs, out, json)
    elif len(runs) > 1:
        _seeds(runs, out, json)
    elif out is not None:
        raise UserError(f"--out {out} is for several folders; the report of one is written into {runs[0]}")
    else:
        _single(runs[0], json)


def _single(run: Path, json: bool) -> None:
    from calmctl.reporting.kv_report import measured_tables, terminal_table, write_kv_report

    written = write_kv_report(run)
    if json:
        output.print_json({"files": [str(path) for path in written], **measured_tables(run)})
        return
    terminal_table(run)
    output.note(f"wrote {run / 'report.html'}, {run / 'report.md'} and {len(written) - 2} plots")


def _costs(runs: list[Path], out: Path | None, json: bool) -> None:
    from calmctl.files import write_json, write_text
    from calmctl.reporting.cost_table import cost_rows, cost_table
    from calmctl.reporting.tables import to_markdown
    from calmctl.reporting.terminal import print_tables

    rows = cost_rows(runs)
    if json:
        output.print_json(rows)
    else:
        print_tables(cost_table(rows))
    if out is not None:
        write_text(out / "cost.md", to_markdown(cost_table(rows)))
        write_json(out / "cost.json", rows)
        output.note(f"wrote {out / 'cost.md'} and {out / 'cost.json'}")


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
