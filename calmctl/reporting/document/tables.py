"""Tables of measured figures beside the paper's, and their output as Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from markupsafe import Markup

from calmctl.escaping import md_code, md_text, url_path

NOT_RUN = "not run"
SHORT = 16
"""Tables up to this number of rows are not split across pages in print."""


@dataclass(frozen=True)
class Number:
    """A cell with a measured figure; `value` is None if it was not measured.

    Attributes:
        paper: the paper's figure in the same unit; the difference is shown beside it.
        spread: standard deviation over seeds.
        href: relative link to the source of the figure.
        note: shown after the figure, in small type.
        mark: sign directly behind the figure, which the caption explains.
    """

    value: float | None
    paper: float | None = None
    spread: float | None = None
    digits: int = 1
    href: str = ""
    note: str = ""
    mark: str = ""

    def main(self) -> str:
        """Return the figure as text: `86.7`, `86.7 ± 0.4` or `not run`."""
        if self.value is None:
            return NOT_RUN
        spread = "" if self.spread is None else f" ± {self.spread:.{self.digits}f}"
        return f"{self.value:.{self.digits}f}{spread}{self.mark}"

    def asides(self) -> list[str]:
        """Return the texts beside the figure: the paper's figure, the difference to it, and the note."""
        parts = []
        if self.paper is not None:
            parts.append(f"paper {self.paper:.{self.digits}f}")
        if self.value is not None and self.paper is not None:
            parts.append(signed(round(self.value, self.digits) - self.paper, self.digits))
        return [*parts, self.note] if self.note else parts


@dataclass(frozen=True)
class Text:
    """A cell with text: a label or, with `is_code`, the input or output of a model."""

    text: str
    href: str = ""
    is_code: bool = False
    verdict: bool | None = None
    """Whether the text is a right answer; None if it is no answer or was not judged."""

    def asides(self) -> list[str]:
        """Return the verdict as a word."""
        return {True: ["right"], False: ["wrong"], None: []}[self.verdict]


Cell = Number | Text


@dataclass(frozen=True)
class Column:
    """A column; in HTML, adjacent columns of the same `group` share a heading."""

    label: str
    group: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table; every row has one cell per column.

    Attributes:
        headings: row index -> heading above that row, for it and the rows that follow.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    headings: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cells in self.rows:
            if len(cells) != len(self.columns):
                raise ValueError(f"table {self.title!r}: {len(cells)} cells under {len(self.columns)} columns")

    def groups(self) -> list[tuple[str, int]]:
        """Return (heading, number of columns that it spans) for the groups of columns; empty without groups."""
        if not any(column.group for column in self.columns):
            return []
        return [(name, len(list(run))) for name, run in groupby(self.columns, lambda column: column.group)]

    def opens_group(self, index: int) -> bool:
        """Return whether the column at `index` starts a group and is separated by a rule."""
        return index > 0 and self.columns[index].group != self.columns[index - 1].group


def table_row(*cells: Cell) -> tuple[Cell, ...]:
    """Return the cells as a row, typed as a mixture of numbers and texts."""
    return cells


def signed(value: float, digits: int = 1) -> str:
    """Return a difference with its sign, zero without one."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return f"±{text}"
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def to_markdown(table: Table) -> str:
    """Return the table as a Markdown pipe table, its title in bold above and its caption below."""
    lines = [f"**{md_text(table.title)}**", ""] if table.title else []
    lines.append(_pipes([md_text(column.label) for column in table.columns]))
    lines.append(_pipes(["---" if column.is_text else "---:" for column in table.columns]))
    for index, cells in enumerate(table.rows):
        if index in table.headings:
            lines.append(_pipes([f"**{md_text(table.headings[index])}**", *[""] * (len(table.columns) - 1)]))
        lines.append(_pipes([_markdown_cell(cell) for cell in cells]))
    if table.caption:
        lines += ["", md_text(table.caption)]
    return "\n".join(lines) + "\n"


def _pipes(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    if isinstance(cell, Number):
        main = cell.main()
    else:
        main = md_code(cell.text) if cell.is_code else md_text(cell.text)
    linked = f"[{main}]({url_path(cell.href)})" if cell.href else main
    return f"{linked} ({md_text(', '.join(asides))})" if (asides := cell.asides()) else linked


def to_html(table: Table) -> Markup:
    """Return the table as HTML; every text is escaped."""
    parts = [Markup('<div class="scroll{}"><table>').format(" short" if len(table.rows) <= SHORT else "")]
    if table.title:
        parts.append(Markup("<caption>{}</caption>").format(table.title))
    parts.append(Markup("<thead>"))
    if groups := table.groups():
        heads = (
            Markup('<th colspan="{}" class="group{}">{}</th>').format(span, " named" if name else "", name)
            for name, span in groups
        )
        parts += [Markup("<tr>"), *heads, Markup("</tr>")]
    parts.append(Markup("<tr>"))
    for index, column in enumerate(table.columns):
        parts.append(Markup('<th class="{}">{}</th>').format(_css(table, index), column.label))
    parts.append(Markup("</tr></thead><tbody>"))
    for number, cells in enumerate(table.rows):
        if number in table.headings:
            row = Markup('<tr><th class="heading" colspan="{}">{}</th></tr>\n')
            parts.append(row.format(len(table.columns), table.headings[number]))
        shown = (_html_cell(cell, _css(table, index)) for index, cell in enumerate(cells))
        parts += [Markup("<tr>"), *shown, Markup("</tr>\n")]
    parts.append(Markup("</tbody></table></div>"))
    if table.caption:
        parts.append(Markup('<p class="note">{}</p>').format(table.caption))
    return Markup("").join(parts)


def _css(table: Table, index: int) -> str:
    kind = "text" if table.columns[index].is_text else "number"
    return f"{kind} opens" if table.opens_group(index) else kind


def _html_cell(cell: Cell, css: str) -> Markup:
    if isinstance(cell, Number):
        main = Markup('<span class="absent">{}</span>' if cell.value is None else "{}").format(cell.main())
    else:
        main = Markup('<code dir="auto">{}</code>' if cell.is_code else "{}").format(cell.text)
    if cell.href:
        main = Markup('<a href="{}">{}</a>').format(url_path(cell.href), main)
    parts = [Markup("<span>{}</span>").format(part) for part in cell.asides()]
    small = Markup("<small>{}</small>").format(Markup(" ").join(parts)) if parts else Markup("")
    return Markup('<td class="{}">{}{}</td>').format(css, main, small)
