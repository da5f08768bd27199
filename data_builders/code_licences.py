"""Licences of source files: permissive or not, from headers, package metadata, licence files and datasets' columns.

What is looked at is what people wrote about their code, by words; it is a filter for a corpus and no legal advice.
"""

from __future__ import annotations

import csv
import re
from email.parser import HeaderParser
from pathlib import Path

PERMISSIVE, OTHER, UNKNOWN = "permissive", "other", "unknown"
_HEADER_CHARACTERS = 3000
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([^\n*/#]+)")
_RESTRICTED = re.compile(
    r"\b(a?gpl|lgpl|gnu|copyleft|mpl|mozilla public|epl|eclipse public|cddl|eupl|osl|sspl|busl|cc-by-(nc|sa)|"
    r"proprietary|all rights reserved|commercial|other/proprietary)\b",
    re.IGNORECASE,
)
_PERMISSIVE = re.compile(
    r"\b(mit|mit-cmu|mit-0|apache|bsd|0bsd|isc|iscl|psf|python software foundation|python-2|cnri-python|zlib|"
    r"unlicense|public domain|cc0|hpnd|bsl-1|boost|wtfpl|ncsa|artistic-2)\b",
    re.IGNORECASE,
)
_COPYLEFT_TEXT = re.compile(r"gnu\s+(lesser\s+|affero\s+|library\s+)?general\s+public|mozilla\s+public", re.IGNORECASE)
_PERMISSIVE_TEXT = re.compile(
    r"permission is hereby granted, free of charge|redistribution and use in source and binary forms|"
    r"licensed under the (apache|mit|bsd)|apache license,?\s+version 2|python software foundation license|"
    r"permission to use, copy, modify,? and(/or)? distribute|\bmit licen[sc]e\b|\bbsd licen[sc]e\b",
    re.IGNORECASE,
)
_FILE = re.compile(r"(licen[sc]e|copying)([.-]\w+)?", re.IGNORECASE)


def of_expression(expression: str) -> str:
    """Classify what metadata says: `MIT`, `Apache-2.0 OR GPL-2.0`, `BSD License`."""
    choices = [_of_words(part) for part in re.split(r"\bOR\b", expression)]
    return PERMISSIVE if PERMISSIVE in choices else OTHER if OTHER in choices else UNKNOWN


def of_header(text: str) -> str:
    """Classify what the beginning of a file says of itself; unknown where it says nothing."""
    head = text[:_HEADER_CHARACTERS]
    if (stated := _SPDX.search(head)) is not None:
        return of_expression(stated[1])
    if _COPYLEFT_TEXT.search(head):
        return OTHER
    return PERMISSIVE if _PERMISSIVE_TEXT.search(re.sub(r"[\s#*/]+", " ", head)) else UNKNOWN


def of_licence_text(text: str) -> str:
    """Classify the text of a licence file."""
    if _COPYLEFT_TEXT.search(text[:400]):
        return OTHER
    return PERMISSIVE if _PERMISSIVE_TEXT.search(" ".join(text.split())) else UNKNOWN


class TreeLicences:
    """What a folder tree says of the licences of its files: metadata of installed packages, then licence files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._of_file = _installed(root)
        self._of_folder: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Return what is known of a file below the root: from its package, else from the nearest licence file."""
        return self._of_file.get(path) or self._nearest(path.parent)

    def _nearest(self, folder: Path) -> str:
        if folder not in self._of_folder:
            found = sorted(each for each in folder.iterdir() if _FILE.fullmatch(each.name) and each.is_file())
            known = {of_licence_text(each.read_text(encoding="utf-8", errors="replace")) for each in found} - {UNKNOWN}
            if known:
                self._of_folder[folder] = OTHER if OTHER in known else PERMISSIVE
            else:
                self._of_folder[folder] = UNKNOWN if folder == self._root else self._nearest(folder.parent)
        return self._of_folder[folder]


def _of_words(text: str) -> str:
    if _RESTRICTED.search(text):
        return OTHER
    return PERMISSIVE if _PERMISSIVE.search(text) else UNKNOWN


def _installed(root: Path) -> dict[Path, str]:
    """Return the licence of every file that the records of installed packages name."""
    found: dict[Path, str] = {}
    for record in sorted(root.glob("*.dist-info/RECORD")):
        metadata = record.with_name("METADATA")
        if not metadata.is_file():
            continue
        licence = of_metadata(metadata.read_text(encoding="utf-8", errors="replace"))
        with record.open(encoding="utf-8", errors="replace", newline="") as lines:
            found |= {root / row[0]: licence for row in csv.reader(lines) if row}
    return found


def of_metadata(text: str) -> str:
    """Classify the licence that the METADATA of a Python package names."""
    fields = HeaderParser().parsestr(text)
    if expression := fields.get("License-Expression"):
        return of_expression(expression)
    classifiers = [each for each in fields.get_all("Classifier", []) if each.startswith("License ::")]
    known = {_of_words(each.rpartition("::")[2]) for each in classifiers} - {UNKNOWN}
    if known:
        return OTHER if OTHER in known else PERMISSIVE
    licence = fields.get("License", "")
    return of_expression(licence) if "\n" not in licence.strip() else of_licence_text(licence)
