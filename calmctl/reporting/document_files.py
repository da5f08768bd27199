"""A report on the disk: `report.md`, `report.html` and the PNG of every plot."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from calmctl import files
from calmctl.reporting.document import Document, Gallery, Picture, document_html, document_markdown


def write_document(document: Document, folder: Path) -> list[Path]:
    """Write the plots of a report, then `report.md` and `report.html`, into a folder and return their paths."""
    written = []
    for picture in _pictures(document):
        _write_bytes(folder / picture.path, picture.png)
        written.append(folder / picture.path)
    for name, text in (("report.md", document_markdown(document)), ("report.html", document_html(document))):
        files.write_text(folder / name, text)
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


def _write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically; plots can be drawn again, so they are not forced to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        stream.write(content)
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, path)
