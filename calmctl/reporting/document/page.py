"""A report as sections of blocks; written as Markdown, as one self-contained HTML page, and as plot files."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from calmctl.escaping import md_code, md_text, url_path, visible
from calmctl.reporting.document.tables import Table, to_html, to_markdown
from data_builders.files import write_bytes, write_text

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text; with `is_warning`, it is highlighted."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of plain texts."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names and values, such as hardware; `code` has the names of entries shown as code (commands, hashes)."""

    items: tuple[tuple[str, str], ...]
    code: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A plot: its path relative to the report, its alternative text and its PNG bytes."""

    path: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Gallery:
    """Several pictures, side by side if the page is wide enough."""

    pictures: tuple[Picture, ...]


Block = Paragraph | Bullets | Facts | Picture | Gallery | Table


@dataclass(frozen=True)
class Section:
    """A heading with the blocks below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report: title, headline sentences and sections."""

    title: str
    headline: tuple[str, ...]
    sections: tuple[Section, ...]


def _blocks(section: Section) -> list[Block]:
    """Return a section's blocks; drop the title of a table if it repeats the section's."""
    return [
        replace(block, title="") if isinstance(block, Table) and block.title == section.title else block
        for block in section.blocks
    ]


def document_markdown(document: Document) -> str:
    """Return the report as Markdown; pictures and runs are linked by relative path."""
    parts = [f"# {md_text(document.title)}", f"**{md_text(document.headline[0])}**"]
    parts += [md_text(sentence) for sentence in document.headline[1:]]
    for section in document.sections:
        parts.append(f"## {md_text(section.title)}")
        parts += [_markdown_block(block) for block in _blocks(section)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Paragraph(text, is_warning):
            return f"> **Note.** {md_text(text)}" if is_warning else md_text(text)
        case Bullets(items):
            return "\n".join(f"- {md_text(item)}" for item in items)
        case Facts(items, code):
            return "\n".join(
                f"- {md_text(name)}: {md_code(value) if name in code else md_text(value)}" for name, value in items
            )
        case Picture(path, alt):
            return f"![{md_text(alt)}]({url_path(path)})"
        case Gallery(pictures):
            return "\n\n".join(_markdown_block(picture) for picture in pictures)
        case Table():
            return to_markdown(block)


def document_html(document: Document) -> str:
    """Return the report as one HTML page with embedded styles and pictures; every text is escaped."""
    sections = [
        (section.title, Markup("\n").join(_html_block(block) for block in _blocks(section)))
        for section in document.sections
    ]
    return visible(_environment().get_template(TEMPLATE).render(document=document, sections=sections))


def _html_block(block: Block) -> Markup:
    match block:
        case Paragraph(text, is_warning):
            return Markup('<p class="warning">{}</p>' if is_warning else "<p>{}</p>").format(text)
        case Bullets(items):
            return _wrap("ul", (Markup("<li>{}</li>").format(item) for item in items))
        case Facts(items, code):
            entries = (
                Markup("<dt>{}</dt><dd><code>{}</code></dd>" if name in code else "<dt>{}</dt><dd>{}</dd>").format(
                    name, value
                )
                for name, value in items
            )
            return _wrap("dl", entries)
        case Picture(path, alt, png):
            data = base64.b64encode(png).decode("ascii")
            return Markup('<figure><a href="{}"><img src="data:image/png;base64,{}" alt="{}"></a></figure>').format(
                url_path(path), data, alt
            )
        case Gallery(pictures):
            inner = Markup("").join(_html_block(picture) for picture in pictures)
            return Markup('<div class="gallery">{}</div>').format(inner)
        case Table():
            return to_html(block)


def _wrap(tag: str, parts: object) -> Markup:
    return Markup("<{0}>{1}</{0}>").format(Markup(tag), Markup("").join(parts))  # type: ignore[arg-type]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("calmctl.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_document(document: Document, folder: Path) -> list[Path]:
    """Write the plots, `report.md` and `report.html` into a folder and return their paths."""
    written = []
    for picture in _pictures(document):
        write_bytes(folder / picture.path, picture.png, durable=False)  # plots can be drawn again
        written.append(folder / picture.path)
    for name, text in (("report.md", document_markdown(document)), ("report.html", document_html(document))):
        write_text(folder / name, text)
        written.append(folder / name)
    return written


def _pictures(document: Document) -> list[Picture]:
    found: list[Picture] = []
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Gallery):
                found += block.pictures
            elif isinstance(block, Picture):
                found.append(block)
    return found
