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
from calmctl.reporting.results import Results
from calmctl.reporting.systems_table import GROUPS

TABLES_FILE = "llm_adapters_tables.json"
AVERAGE = "Average"
GUESSES = {"chance": "chance", "majority": "most frequent answer"}
GUESSED_WITHIN_POINTS = 1.0
TRAINED_ON, GUESSED = "†", "‡"
NOT_TRAINED = "not trained"
"""The published models that were asked as they are."""
_FOLDERS = {"MAWPS": "mawps"}
"""Name of a set in the published tables -> its name in the data, where they differ."""
# Published table -> columns whose questions are in the data that its models were trained on: MAWPS's training file.
CONTAMINATED: Mapping[str, tuple[str, ...]] = {
    "arithmetic": ("MAWPS",),
    "arithmetic_withdrawn": ("MultiArith", "AddSub", "SingleEq"),
}


@dataclass(frozen=True)
class PublishedTable:
    """A published table: base model -> adapter -> the figures of `columns`, in percent."""

    source: str
    columns: tuple[str, ...]
    bases: Mapping[str, Mapping[str, Sequence[float]]]


@cache
def published_table(name: str) -> PublishedTable:
    """Return a published table by name; raises KeyError if there is none."""
    text = resources.files("calmctl.reporting").joinpath(TABLES_FILE).read_text(encoding="utf-8")
    found = json.loads(text)[name]
    return PublishedTable(found["source"], tuple(found["columns"]), found["bases"])


def sets_tables(results: Results) -> list[Table]:
    """Return one table per measure by set of the layout, and per published table that belongs to it."""
    found = []
    for by_set in results.layout.by_set:
        names = _names(results, by_set.measure)
        if not names:
            continue
        for published in by_set.published or ("",):
            found.append(_table(results, by_set, names, published))
    return found


def _names(results: Results, measure: Measure) -> dict[str, str]:
    """Return the sets that any system has figures of, with their names in the published tables."""
    found: dict[str, str] = {}
    for each in results.evaluations(measure.task):
        for key, figures in each.breakdowns.get(BY_SET, {}).items():
            if measure.metric in figures:
                found[key] = each.names.get(key, key)
    return found


def _table(results: Results, by_set: BySet, names: Mapping[str, str], published: str) -> Table:
    measure, table = by_set.measure, published_table(published) if published else None
    columns = [*names.values()]
    if table is not None:
        columns += [name for name in table.columns if name not in columns and name != AVERAGE]
    guesses = {name: _guess(results, measure, key) for key, name in names.items()}
    rows: list[tuple[Cell, ...]] = []
    headings = {0: "Guessing"}
    for field, label in GUESSES.items() if any(guess is not None for guess in guesses.values()) else ():
        guessed: list[Cell] = [_cell(_figure(results, measure, key, field), None, False) for key in names]
        rows.append(_row(label, "–", guessed, columns, Text("–")))
    for group in GROUPS:
        systems = [each for each in results.group(group) if results.spread(each.key, measure).values]
        if systems:
            headings[len(rows)] = results.heading(group)
        for system in systems:
            spreads = [results.group_spread(system.key, measure, key, BY_SET) for key in names]
            seen = _seen_by_ours(results) if system.runs[0].is_trained else {}
            cells: list[Cell] = [
                _cell(spread.mean, guesses[name], name in seen, spread.std)
                for spread, name in zip(spreads, names.values(), strict=True)
            ]
            whole = results.spread(system.key, measure)
            mark = TRAINED_ON if set(seen) & set(names.values()) else ""
            mean = Number(whole.mean, None, whole.std, href=results.href(system.key, measure.task), mark=mark)
            size = system.runs[0].trainable_parameters
            rows.append(_row(system.label, "–" if size is None else f"{size:,}", cells, columns, mean))
    if table is not None:
        _add_published(rows, headings, table, published, columns, guesses)
    shown = (Column("model", is_text=True), Column("trained params"), *map(Column, columns), Column("average"))
    title = by_set.title if len(by_set.published) < 2 else f"{by_set.title}, beside {_named(published)}"
    return Table(title, shown, tuple(rows), _caption(results, measure, table, published), headings)


def _row(label: str, size: str, cells: Sequence[Cell], columns: Sequence[str], mean: Cell) -> tuple[Cell, ...]:
    missing = [Text("–")] * (len(columns) - len(cells))
    return table_row(Text(label), Text(size), *cells, *missing, mean)


def _add_published(
    rows: list[tuple[Cell, ...]],
    headings: dict[int, str],
    table: PublishedTable,
    published: str,
    columns: Sequence[str],
    guesses: Mapping[str, float | None],
) -> None:
    known = CONTAMINATED.get(published, ())
    for base, methods in table.bases.items():
        headings[len(rows)] = f"Published: {base}"
        for method, figures in methods.items():
            by_name = dict(zip(table.columns, figures, strict=True))
            seen = () if base == NOT_TRAINED else known
            cells = [_cell(by_name.get(name), guesses.get(name), name in seen) for name in columns]
            mean = Number(by_name[AVERAGE], mark=TRAINED_ON if seen else "")
            rows.append(table_row(Text(method), Text("–"), *cells, mean))


def _cell(value: float | None, guess: float | None, is_trained_on: bool, std: float | None = None) -> Cell:
    """Return a figure with its marks."""
    if value is None:
        return Text("–")
    is_guess = guess is not None and value <= guess + GUESSED_WITHIN_POINTS
    return Number(value, None, std, mark=(TRAINED_ON if is_trained_on else "") + (GUESSED if is_guess else ""))


def _guess(results: Results, measure: Measure, key: str) -> float | None:
    """Return the accuracy of the better guess on a set; None where there is nothing to choose from."""
    known = [found for field in GUESSES if (found := _figure(results, measure, key, field)) is not None]
    return max(known, default=None)


def _figure(results: Results, measure: Measure, key: str, field: str) -> float | None:
    found = (each.breakdowns.get(BY_SET, {}).get(key, {}) for each in results.evaluations(measure.task))
    return next((figures[field] for figures in found if field in figures), None)


def _named(published: str) -> str:
    return {"arithmetic_withdrawn": "the withdrawn table"}.get(published, "the published table")


def _caption(results: Results, measure: Measure, table: PublishedTable | None, published: str) -> str:
    counts = sorted({each.n for each in results.evaluations(measure.task) if each.n is not None})
    limit = next((each.data["limit"] for each in results.evaluations(measure.task) if each.data.get("limit")), None)
    asked = f", the first {limit} of each set" if limit else ""
    parts = [
        f"{measure.short.capitalize()} in percent; {' or '.join(f'{count:,}' for count in counts)} questions{asked}.",
        f"{GUESSED} at most {GUESSED_WITHIN_POINTS:g} point above the better guess.",
    ]
    if table is not None:
        parts.append(f"Published: {table.source}; of whole test sets.")
    if published in CONTAMINATED or _seen_by_ours(results):
        parts.append(
            f"{TRAINED_ON} trained on questions of this set{_counts(results, published)}, or a mean over such."
        )
    return " ".join(parts)


def _in_training_files(results: Results) -> dict[str, tuple[int, int]]:
    """Return, by set as published tables name it, how many of its questions stand in training files, and of how many.

    The builder of our data counts them before it takes them out.
    """
    overlap = (results.manifest or {}).get("overlap") or {}
    tests = overlap.get("tests") or {} if isinstance(overlap, Mapping) else {}
    names = {folder: name for name, folder in _FOLDERS.items()}
    return {
        names.get(folder, folder): (row["in_training_files"], row["questions"])
        for folder, row in tests.items()
        if row["in_training_files"]
    }


def _seen_by_ours(results: Results) -> dict[str, tuple[int, int]]:
    """Return the sets whose questions our own models were trained on: none unless they were left in the data."""
    overlap = (results.manifest or {}).get("overlap") or {}
    return _in_training_files(results) if isinstance(overlap, Mapping) and overlap.get("left") else {}


def _counts(results: Results, published: str) -> str:
    known = _in_training_files(results)
    told = [
        f"{known[name][0]} of {known[name][1]} of {name}"
        for name in CONTAMINATED.get(published, known)
        if name in known
    ]
    return f" (in training files: {', '.join(told)})" if told else ""
