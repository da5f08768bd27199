"""Tables of reasoning sets: every system's accuracy on each set, with the published tables of LLM-Adapters below.

Three kinds of figures are marked: what guessing reaches as well, what is of questions that the published models were
trained on, and means over such figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from calmctl.reporting.document.tables import Cell, Column, Number, Table, Text, table_row
from calmctl.reporting.evaluations import BY_SET
from calmctl.reporting.measures import BySet, Measure
from calmctl.reporting.results import Results, System
from calmctl.reporting.systems_table import GROUPS
from calmctl.reporting.values import Spread

TABLES_FILE = "llm_adapters_tables.json"
GUESSES = {"chance": "chance", "majority": "most frequent answer"}
GUESSED_WITHIN_POINTS = 1.0
TRAINED_ON, GUESSED = "†", "‡"
NOT_TRAINED = "not trained"
"""The published models that were asked as they are."""
# Published table -> sets whose questions are in the data that its models were trained on: MAWPS's training file.
CONTAMINATED: Mapping[str, tuple[str, ...]] = {
    "arithmetic": ("mawps",),
    "arithmetic_withdrawn": ("MultiArith", "AddSub", "SingleEq"),
}


@dataclass(frozen=True)
class PublishedTable:
    """A published table: base model -> adapter -> the figures of `sets` and their average, in percent.

    Attributes:
        sets: folder of a set -> its column.
        most_frequent: folder -> what the most frequent answer reaches on the whole set; None without choices.
    """

    source: str
    sets: Mapping[str, str]
    most_frequent: Mapping[str, float | None]
    bases: Mapping[str, Mapping[str, Sequence[float]]]


@cache
def published_table(name: str) -> PublishedTable:
    """Return a published table by name; raises KeyError if there is none."""
    text = resources.files("calmctl.reporting").joinpath(TABLES_FILE).read_text(encoding="utf-8")
    found = json.loads(text)[name]
    sets = dict(zip(found["sets"], found["columns"], strict=False))  # the last column is the average
    guesses = dict(zip(found["sets"], found["most_frequent"], strict=True))
    return PublishedTable(found["source"], sets, guesses, found["bases"])


def sets_tables(results: Results) -> list[Table]:
    """Return one table per measure by set of the layout, and per published table that belongs to it."""
    found = []
    for by_set in results.layout.by_set:
        if names := _names(results, by_set.measure):
            for published in by_set.published or ("",):
                found.append(_SetsTable(results, by_set, names, published).table())
    return found


def seen_sets(results: Results) -> list[str]:
    """Return the folders of sets whose questions our own models were trained on: none unless the data kept them."""
    overlap = (results.manifest or {}).get("overlap") or {}
    return list(_in_training_files(results)) if isinstance(overlap, Mapping) and overlap.get("left") else []


def _names(results: Results, measure: Measure) -> dict[str, str]:
    """Return the sets that any system has figures of, by folder, with their names in the published tables."""
    found: dict[str, str] = {}
    for each in results.evaluations(measure.task):
        for key, figures in each.breakdowns.get(BY_SET, {}).items():
            if measure.metric in figures:
                found[key] = each.names.get(key, key)
    return found


class _SetsTable:
    """Builds the table of a measure by set, with the rows of a published table below it if `published` names one."""

    def __init__(self, results: Results, by_set: BySet, names: Mapping[str, str], published: str) -> None:
        self.results, self.measure, self.by_set, self.name = results, by_set.measure, by_set, published
        self.published = published_table(published) if published else None
        theirs = self.published.sets if self.published else {}
        self.columns = {**names, **theirs}
        self.guesses = {key: self._guess(key) for key in names}
        self.averaged = list(theirs or names)
        self.rows: list[tuple[Cell, ...]] = []
        self.headings: dict[int, str] = {}

    def table(self) -> Table:
        """Return the table."""
        self._add_guesses()
        self._add_systems()
        if self.published is not None:
            self._add_published(self.published)
        columns = (*map(Column, self.columns.values()), Column("average"))
        shown = (Column("model", is_text=True), Column("trained params"), *columns)
        several = len(self.by_set.published) > 1
        beside = "the withdrawn table" if "withdrawn" in self.name else "the published table"
        title = f"{self.by_set.title}, beside {beside}" if several else self.by_set.title
        return Table(title, shown, tuple(self.rows), self._caption(), self.headings)

    def _add_guesses(self) -> None:
        if any(guess is not None for guess in self.guesses.values()):
            self.headings[0] = "Guessing"
            for field, label in GUESSES.items():
                self._add_row(
                    label, "–", {key: self._cell(self._figure(key, field)) for key in self.columns}, Text("–")
                )

    def _add_systems(self) -> None:
        for group in GROUPS:
            systems = [each for each in self.results.group(group) if self.results.spread(each.key, self.measure).values]
            if systems:
                self.headings[len(self.rows)] = self.results.heading(group)
            for system in systems:
                self._add_system(system)

    def _add_system(self, system: System) -> None:
        seen = seen_sets(self.results) if system.runs[0].is_trained else []
        spreads = {key: self.results.group_spread(system.key, self.measure, key, BY_SET) for key in self.columns}
        cells = {
            key: self._cell(spread.mean, self.guesses.get(key), key in seen, spread.std)
            for key, spread in spreads.items()
        }
        whole = self._average(system)
        mark = TRAINED_ON if set(seen) & set(self.averaged) else ""
        href = self.results.href(system.key, self.measure.task)
        mean: Cell = Text("–") if whole.mean is None else Number(whole.mean, None, whole.std, href=href, mark=mark)
        size = system.runs[0].trainable_parameters
        self._add_row(system.label, "–" if size is None else f"{size:,}", cells, mean)

    def _average(self, system: System) -> Spread:
        """Return the mean over the sets of the published table; without one, over ours. Empty if one is missing."""
        found = []
        for each in self.results.evaluations(self.measure.task, system.key):
            by_set = each.breakdowns.get(BY_SET, {})
            values = [by_set.get(key, {}).get(self.measure.metric) for key in self.averaged]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                found.append(sum(known) / len(known))
        return Spread(tuple(found))

    def _add_published(self, table: PublishedTable) -> None:
        known = CONTAMINATED.get(self.name, ())
        for base, methods in table.bases.items():
            self.headings[len(self.rows)] = f"Published: {base}"
            seen = () if base == NOT_TRAINED else known
            for method, figures in methods.items():
                cells = {
                    key: self._cell(value, table.most_frequent[key], key in seen)
                    for key, value in zip(table.sets, figures, strict=False)
                }
                mean = Number(figures[-1], mark=TRAINED_ON if seen else "")
                self._add_row(method, "–", cells, mean)

    def _add_row(self, label: str, size: str, cells: Mapping[str, Cell], mean: Cell) -> None:
        every = (cells.get(key, Text("–")) for key in self.columns)
        self.rows.append(table_row(Text(label), Text(size), *every, mean))

    def _cell(
        self, value: float | None, guess: float | None = None, is_trained_on: bool = False, std: float | None = None
    ) -> Cell:
        """Return a figure with its marks."""
        if value is None:
            return Text("–")
        is_guess = guess is not None and value <= guess + GUESSED_WITHIN_POINTS
        return Number(value, None, std, mark=(TRAINED_ON if is_trained_on else "") + (GUESSED if is_guess else ""))

    def _guess(self, key: str) -> float | None:
        """Return the accuracy of the better guess on our records of a set; None where there is nothing to choose."""
        known = [found for field in GUESSES if (found := self._figure(key, field)) is not None]
        return max(known, default=None)

    def _figure(self, key: str, field: str) -> float | None:
        found = (each.breakdowns.get(BY_SET, {}).get(key, {}) for each in self.results.evaluations(self.measure.task))
        return next((figures[field] for figures in found if field in figures), None)

    def _caption(self) -> str:
        evaluations = self.results.evaluations(self.measure.task)
        counts = sorted({each.n for each in evaluations if each.n is not None})
        limit = next((each.data["limit"] for each in evaluations if each.data.get("limit")), None)
        asked = f", the first {limit} of each set" if limit else ""
        parts = [
            f"{self.measure.short.capitalize()} in percent; {' or '.join(f'{n:,}' for n in counts)} questions{asked}.",
            f"Average: over {', '.join(self.columns[key] for key in self.averaged)}.",
        ]
        marks = "".join(cell.mark for row in self.rows for cell in row if isinstance(cell, Number))
        if GUESSED in marks:
            parts.append(f"{GUESSED} at most {GUESSED_WITHIN_POINTS:g} point above chance or the most frequent answer.")
        if self.published is not None:
            parts.append(f"Published: {self.published.source}; of whole sets. {self.by_set.note}".rstrip())
        if TRAINED_ON in marks:
            parts.append(f"{TRAINED_ON} trained on questions of the set{self._counts()}, or a mean over such.")
        return " ".join(parts)

    def _counts(self) -> str:
        """Return how many questions are in training files, as the builder of our own data has counted them."""
        known = _in_training_files(self.results)
        names = [key for key in self.columns if key in known]
        told = [f"{known[key][0]} of {known[key][1]} of {self.columns[key]}" for key in names]
        return f" (in training files: {', '.join(told)})" if told else ""


def _in_training_files(results: Results) -> dict[str, tuple[int, int]]:
    """Return, by folder of a set, how many of its questions stand in training files, and of how many.

    The builder of the data counts them, whether or not it takes them out.
    """
    overlap = (results.manifest or {}).get("overlap") or {}
    tests = overlap.get("tests") or {} if isinstance(overlap, Mapping) else {}
    return {
        folder: (row["in_training_files"], row["questions"])
        for folder, row in tests.items()
        if row["in_training_files"]
    }
