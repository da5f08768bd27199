"""Tables about the training data: rows and tokens of each file, and overlap with the test sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calmctl.reporting.document.tables import Column, Table, Text, table_row
from calmctl.reporting.values import number, numbers

MANIFEST = "data/manifest.json"
_UNKNOWN = Text("–")


def files_table(manifest: Mapping[str, Any]) -> Table:
    """Return a table of rows, bytes and tokens of every file with records."""
    tokens = _tokens(manifest)
    rows = tuple(
        table_row(Text(name), _count(entry.get("rows")), _count(entry.get("bytes")), _count(tokens.get(name)))
        for name, entry in _entries(manifest.get("files"))
        if entry.get("rows") is not None
    )
    columns = (Column("file", is_text=True), Column("rows"), Column("bytes"), Column("tokens, about"))
    return Table("Data", columns, rows, f"Checksums, sources and settings: {MANIFEST}.")


def overlap_table(manifest: Mapping[str, Any]) -> Table | None:
    """Return a table of removed and remaining overlap with the test sets; None if the manifest has no such facts."""
    kinds = {"ntl": _flores_overlap, "code": _code_overlap}
    rows = kinds.get(str(manifest.get("builder")), _avoided_overlap)(manifest)
    columns = (Column("compared with", is_text=True), Column("removed", is_text=True), Column("left"))
    found = tuple(table_row(Text(name), Text(removed), Text(left)) for name, removed, left in rows)
    caption = f"What counts as overlap: {MANIFEST}."
    return Table("Overlap with the test sets", columns, found, caption) if found else None


def _flores_overlap(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    overlap = _mapping(manifest.get("overlap"))
    if not overlap.get("checked"):
        return [("FLORES", "not compared", "not known")] if overlap else []
    removed = _mapping(overlap.get("removed"))
    told = []
    for corpus, counts in removed.items():
        found = _mapping(counts)
        exact, near = (sum(numbers(found.get(kind)).values()) for kind in ("exact", "near"))
        lines = number(found.get("removed_rows")) or 0
        told.append(f"{corpus}: {lines:,.0f} rows ({exact:,.0f} sentences exact, {near:,.0f} near)")
    left = sum(numbers(overlap.get("left")).values())
    return [("FLORES dev and devtest", "; ".join(told), f"{left:,.0f}")]


def _avoided_overlap(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the overlap of generated data, which is avoided when it is drawn instead of removed."""
    return [
        (name.replace("_", " "), "not drawn in the first place", f"{left:,.0f}")
        for name, left in numbers(manifest.get("overlap")).items()
    ]


def _code_overlap(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    by_language = _mapping(_mapping(manifest.get("counts")).get("files"))
    rows = []
    for name, left in _mapping(manifest.get("overlap")).items():
        left_out = (numbers(_mapping(counts).get("left_out")) for counts in by_language.values())
        removed = sum(counts.get(f"overlap_{name}", 0.0) for counts in left_out)
        known = number(left)
        rows.append((name, f"{removed:,.0f} files", "not compared" if known is None else f"{known:,.0f}"))
    return rows


def _tokens(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Return file name -> estimated tokens; the builders record them in different places of the manifest."""
    about = numbers(_mapping(manifest.get("tokenizer")).get("tokens_about"))
    named = {f"{split}.parquet": count for split, count in about.items()}
    statistics = {name: numbers(entry) for name, entry in _entries(manifest.get("statistics"))}
    return named | {
        name: entry["tokens_estimated"] for name, entry in statistics.items() if "tokens_estimated" in entry
    }


def _entries(value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(name), _mapping(entry)) for name, entry in _mapping(value).items()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> Text:
    known = number(value)
    return _UNKNOWN if known is None else Text(f"{known:,.0f}")
