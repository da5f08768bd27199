"""The paper's own tables of figures, read from package data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

TABLES_FILE = "paper_tables.json"


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper: system -> metric -> figure, in the unit that the caption gives."""

    source: str
    caption: str
    systems: Mapping[str, Mapping[str, float]]

    def figure(self, system: str, metric: str) -> float | None:
        """Return the paper's figure, or None if the paper has none."""
        return self.systems.get(system, {}).get(metric)


@cache
def paper_table(name: str) -> PaperTable:
    """Return a table of the paper by name.

    Raises:
        KeyError: there is no table of that name.
    """
    text = resources.files("calmctl.reporting").joinpath(TABLES_FILE).read_text(encoding="utf-8")
    tables = json.loads(text)
    if name not in tables:
        raise KeyError(f"no paper table {name!r}; there are {', '.join(tables)}")
    table = tables[name]
    return PaperTable(table["source"], table["caption"], table["systems"])


TABLE_1: Mapping[str, Mapping[str, float]] = paper_table("table1").systems
"""Key-value arithmetic: system -> metric -> exact match in percent."""
