"""A report on the disk: `report.md`, `report.html` and the PNG of every plot."""

from __future__ import annotations

from pathlib import Path

from calmctl.reporting.document import Document, Gallery, Picture, document_html, document_markdown
from data_builders.files import write_bytes, write_text


def write_document(document: Document, folder: Path) -> list[Path]:
    """Write the plots of a report, then `report.md` and `report.html`, into a folder and return their paths."""
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
