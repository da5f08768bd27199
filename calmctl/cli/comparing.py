"""Options and output of commands that compare runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calmctl.cli import output
from calmctl.errors import UserError
from calmctl.escaping import visible

if TYPE_CHECKING:
    from calmctl.reporting.comparison import Comparison

Sort = Annotated[
    str,
    typer.Option(
        "--sort",
        metavar="COLUMN",
        help="Best first: validation_loss, loss, a setting (lr), a figure (kv.kv_math); -COLUMN: last first.",
    ),
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Also write all columns, with exact numbers, to this file.")]


def print_comparison(compared: Comparison) -> None:
    """Print runs side by side, and which is the best."""
    from calmctl.reporting.document.terminal import print_tables

    print_tables(compared.table())
    if verdict := compared.verdict():
        print(visible(verdict))


def write_csv(compared: Comparison, path: Path | None) -> None:
    """Write runs as CSV if a file is given for it; raises UserError if that is a folder."""
    if path is not None:
        if path.is_dir():
            raise UserError(f"--csv {path}: a folder; give a file, such as {path / 'runs.csv'}")
        compared.write_csv(path)
        output.note(f"wrote {path}")
