"""`calmctl report`: report one reproduction, several seeds of it, trainings, or evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calmctl.cli import options, output
from calmctl.escaping import visible

if TYPE_CHECKING:
    from calmctl.reporting.comparison import Comparison

_Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="A folder of `calmctl reproduce`, several that differ in their seed, or trainings and evaluations.",
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Also write the tables of several folders, of trainings or evaluations here."),
]


def report(
    runs: _Runs,
    out: _Out = None,
    sort: options.Sort = "",
    csv: options.Csv = None,
    json: options.Json = False,
) -> None:
    """Write a reproduction's report and print its tables; several: mean and deviation; other runs: side by side."""
    from calmctl.errors import CalmctlError, UserError
    from calmctl.reporting.kinds import common_kind, readable, with_runs

    named = with_runs(runs)
    runs, broken = readable(named)
    if (kind := common_kind(runs)) != "reproduction":
        _side_by_side(kind, runs, broken, out, sort, csv, json)
    elif sort or csv:
        raise UserError("--sort and --csv are for trainings and evaluations; see `calmctl ls runs` for all in a folder")
    elif len(runs) > 1:
        print_seeds(runs, out, json)
    elif out is not None:
        raise UserError(f"--out {out} is for several folders; the report of one is written into {runs[0]}")
    else:
        _reproduction(runs[0], json)
    if broken:
        reasons = "; ".join(f"{folder} ({reason})" for folder, reason in broken.items())
        raise CalmctlError(f"{len(broken)} of {len(named)} runs cannot be reported, the others are: {reasons}")


def _reproduction(run: Path, json: bool) -> None:
    from calmctl.reporting.report import write_report

    written = write_report(run)
    print_reproduction(run, json, written)
    if not json:
        output.note(f"wrote {run / 'report.html'}, {run / 'report.md'} and {len(written) - 2} plots")


def print_reproduction(run: Path, json: bool, written: Sequence[Path] = ()) -> None:
    """Print the results of a reproduction; the JSON form includes the paths of the written files."""
    from calmctl.reporting.report import measured, terminal_tables

    if json:
        files = {"files": [str(path) for path in written]} if written else {}
        output.print_json({**files, **measured(run)})
    else:
        terminal_tables(run)


def print_seeds(runs: Sequence[Path], out: Path | None, json: bool) -> None:
    """Print mean and standard deviation over reproductions of several seeds; also write them if `out` is given."""
    from calmctl.reporting.document.terminal import print_tables
    from calmctl.reporting.headline import headline
    from calmctl.reporting.seeds import pool, pooled_figures, pooled_tables, write_pooled

    pooled = pool(runs)
    if json:
        output.print_json(pooled_figures(pooled))
    else:
        print(visible("\n".join(headline(pooled))), end="\n\n")
        print_tables(*pooled_tables(pooled))
    if out is not None:
        _note_written(write_pooled(pooled, out))


def _side_by_side(
    kind: str, runs: list[Path], broken: Mapping[Path, str], out: Path | None, sort: str, csv: Path | None, json: bool
) -> None:
    from calmctl.reporting.compared_runs import compare
    from calmctl.runs.record import read_run

    compared = compare([read_run(run) for run in runs], sort)
    if kind == "training":
        _trainings(compared, broken, out, json)
    else:
        _evaluations([Path(row.facts["run"]) for row in compared.rows], broken, out, json)
    output.write_csv(compared, csv)


def _trainings(compared: Comparison, broken: Mapping[Path, str], out: Path | None, json: bool) -> None:
    from calmctl.reporting.costs import cost_rows, cost_table, is_training
    from calmctl.reporting.document.tables import to_markdown
    from calmctl.reporting.document.terminal import print_tables
    from data_builders.files import write_text
    from data_builders.values import write_json

    rows = cost_rows([run for row in compared.rows if is_training(run := Path(row.facts["run"]))])
    if json:
        costs = {row["run"]: row for row in rows}
        output.print_json([*({**costs.get(each["run"], {}), **each} for each in compared.records()), *_errors(broken)])
    else:
        output.print_comparison(compared)
        print_tables(cost_table(rows))
    if out is not None:
        write_text(out / "runs.md", to_markdown(compared.table()))
        write_json(out / "runs.json", compared.records())
        write_text(out / "cost.md", to_markdown(cost_table(rows)))
        write_json(out / "cost.json", rows)
        _note_written([out / name for name in ("runs.md", "runs.json", "cost.md", "cost.json")])


def _evaluations(runs: list[Path], broken: Mapping[Path, str], out: Path | None, json: bool) -> None:
    from calmctl.reporting.document.terminal import print_tables
    from calmctl.reporting.evaluation_report import (
        evaluation_figures,
        evaluation_tables,
        read_evaluations,
        write_evaluations,
    )
    from calmctl.reporting.evaluations import by_task, not_comparable

    found = read_evaluations(runs)
    if json:
        output.print_json(evaluation_figures(found) | ({"errors": _errors(broken)} if broken else {}))
    else:
        print_tables(*evaluation_tables(found))
        for sentence in not_comparable(by_task(found)).values():
            print(visible(sentence))
    if out is not None:
        _note_written(write_evaluations(found, out))


def _errors(broken: Mapping[Path, str]) -> list[dict[str, str]]:
    return [{"run": str(folder), "error": reason} for folder, reason in broken.items()]


def _note_written(paths: list[Path]) -> None:
    for path in paths:
        output.note(f"wrote {path}")
