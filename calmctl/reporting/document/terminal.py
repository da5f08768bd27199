"""Print tables on stdout, to the width of the terminal or, if piped, to a fixed large width."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from calmctl.escaping import visible
from calmctl.reporting.document.tables import NOT_RUN, Cell, Number, Table

_PIPED_WIDTH = 200


def print_tables(*tables: Table) -> None:
    """Print tables on stdout; piped output is not cut to the width of a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    for table in tables:
        console.print(to_rich(table))


def to_rich(table: Table) -> RichTable:
    """Return the table for a terminal; cell texts are data, never console markup."""
    rich = RichTable(
        title=RichText(visible(table.title), "bold"),
        caption=RichText(visible(table.caption), "dim") if table.caption else None,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for column in table.columns:
        rich.add_column(RichText(visible(column.label)), justify="left" if column.is_text else "right", overflow="fold")
    for index, cells in enumerate(table.rows):
        if index in table.headings:
            rich.add_row(RichText(visible(table.headings[index]), "bold"))
        rich.add_row(*(_rich_cell(cell) for cell in cells))
    return rich


def _rich_cell(cell: Cell) -> RichText:
    main = cell.main() if isinstance(cell, Number) else cell.text
    text = RichText(visible(main), "dim" if main == NOT_RUN else "")
    if asides := cell.asides():
        text.append(visible(f"\n{', '.join(asides)}"), "dim")
    return text
