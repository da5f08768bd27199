"""Tables on stdout, as wide as they need where no terminal limits them."""

from __future__ import annotations

from rich.console import Console

from calmctl.reporting.document.tables import Table, to_rich

_PIPED_WIDTH = 200


def print_tables(*tables: Table) -> None:
    """Print tables on stdout; piped output is not cut to the width of a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    for table in tables:
        console.print(to_rich(table))
