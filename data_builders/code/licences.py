"""Classify licences of source files as permissive or not: by headers, package metadata, licence files, dataset columns.

The classification searches for keywords; it filters a corpus and is no legal advice.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import suppress
from email.parser import HeaderParser
from pathlib import Path

PERMISSIVE, OTHER, UNKNOWN = "permissive", "other", "unknown"
_HEADER_CHARACTERS = 3000
_LICENCE_BYTES, _RECORD_BYTES = 1 << 20, 64 << 20
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([^\n*/#]+)")
_RESTRICTED = re.compile(
    r"\b([al]?gpl|gnu|copyleft|mpl|mozilla public|epl|eclipse public|cddl|eupl|osl|sspl|busl|cc-by-(nc|sa|nd)|"
    r"proprietary|all rights reserved|commercial|non-?commercial|other/proprietary)(v?\d[\w.+-]*)?\b",
    re.IGNORECASE,
)
_PERMISSIVE = re.compile(
    r"\b(mit|mit-cmu|mit-0|apache|bsd|0bsd|isc|iscl|psf|python software foundation|python-2|cnri-python|zlib|"
    r"unlicense|public domain|cc0|hpnd|bsl-1|boost|wtfpl|ncsa|artistic-2)\b",
    re.IGNORECASE,
)
_RESTRICTED_TEXT = re.compile(
    r"gnu (lesser |affero |library )?(general public|[al]?gpl)|\b[al]?gpl(v?[23][\d.+]*)?\b|mozilla public|"
    r"eclipse public|server side public|business source licen|common development and distribution|"
    r"european union public|attribution-?(non-?commercial|share-?alike|no-?deriv)|non-?commercial|commons clause",
    re.IGNORECASE,
)
_PERMISSIVE_TEXT = re.compile(
    r"permission is hereby granted, free of charge|redistribution and use in source and binary forms|"
    r"licensed under the (apache|mit|bsd)|apache license,? version 2|python software foundation license|"
    r"permission to use, copy, modify,? and(/or)? distribute|\bmit licen[sc]e\b|\bbsd licen[sc]e\b",
    re.IGNORECASE,
)
# The heading of a licence names it; further on, permissive licences mention others that they are compatible with.
_HEADING_CHARACTERS = 400
_FILE = re.compile(r"((un)?licen[sc]es?|copying)([._-][\w.+-]*)?", re.IGNORECASE)
_PROGRAM = re.compile(r"\.(py|pyi|js|ts|go|rs|java|rb|php|c|h|cc|cpp|html|json|sh)$", re.IGNORECASE)


def of_expression(expression: str) -> str:
    """Classify a licence named in metadata: `MIT`, `Apache-2.0 OR GPL-2.0`, `BSD License`."""
    choices = [_of_words(part) for part in re.split(r"\bOR\b", expression)]
    return PERMISSIVE if PERMISSIVE in choices else OTHER if OTHER in choices else UNKNOWN


def of_header(text: str) -> str:
    """Classify the licence stated at the beginning of a source file; UNKNOWN if none is."""
    head = text[:_HEADER_CHARACTERS]
    if (stated := _SPDX.search(head)) is not None:
        return of_expression(stated[1])
    plain = re.sub(r"[\s#*/;]+", " ", head)  # without comment signs
    if _RESTRICTED_TEXT.search(plain):
        return OTHER
    return PERMISSIVE if _PERMISSIVE_TEXT.search(plain) else UNKNOWN


def of_licence_text(text: str) -> str:
    """Classify the text of a licence file."""
    plain = " ".join(text.split())
    if _RESTRICTED_TEXT.search(plain[:_HEADING_CHARACTERS]):
        return OTHER
    return PERMISSIVE if _PERMISSIVE_TEXT.search(plain) else UNKNOWN


def of_all(names: list[str]) -> str:
    """Classify licences that apply together, such as those found in one repository: PERMISSIVE only if all are."""
    known = set(map(of_expression, names))
    return OTHER if OTHER in known else PERMISSIVE if known == {PERMISSIVE} else UNKNOWN


class TreeLicences:
    """The licences of the files of a folder tree: from the metadata of installed packages, else from licence files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._of_file = _installed(root)
        self._of_folder: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Return the licence of a file below the root: that of its package, else the nearest licence file's."""
        return self._of_file.get(path) or self._nearest(path.parent)

    def _nearest(self, folder: Path) -> str:
        if folder not in self._of_folder:
            found = sorted(each for each in folder.iterdir() if _is_licence(each))
            known = {of_licence_text(_beginning(each)) for each in found}
            if known:
                # An unrecognised licence file still overrides that of the parent folder.
                self._of_folder[folder] = next(each for each in (OTHER, PERMISSIVE, UNKNOWN) if each in known)
            else:
                self._of_folder[folder] = UNKNOWN if folder == self._root else self._nearest(folder.parent)
        return self._of_folder[folder]


def _is_licence(path: Path) -> bool:
    return bool(_FILE.fullmatch(path.name)) and not _PROGRAM.search(path.name) and path.is_file()


def _of_words(text: str) -> str:
    if _RESTRICTED.search(text):
        return OTHER
    return PERMISSIVE if _PERMISSIVE.search(text) else UNKNOWN


def _installed(root: Path) -> dict[Path, str]:
    """Return the licence of every file that is listed in the RECORD of an installed package."""
    found: dict[Path, str] = {}
    for record in sorted(root.glob("*.dist-info/RECORD")):
        metadata = record.with_name("METADATA")
        if not metadata.is_file():
            continue
        licence = of_metadata(_beginning(metadata))
        with suppress(csv.Error):  # files after the damaged line have no known package
            for row in csv.reader(io.StringIO(_beginning(record, _RECORD_BYTES))):
                found |= {root / name: licence for name in row[:1]}
    return found


def _beginning(path: Path, num_bytes: int = _LICENCE_BYTES) -> str:
    """Return the beginning of a text file; empty if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(num_bytes).decode(errors="replace")
    except OSError:
        return ""


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
