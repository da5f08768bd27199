"""What a section's figures say of its question: is the composition better than either model, and than LoRA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from calmctl.reporting.document.tables import NOT_RUN, Cell, Column, Number, Table, Text, signed, table_row
from calmctl.reporting.measures import CALM, LORA, M_A, M_B, Measure
from calmctl.reporting.paper import paper_table
from calmctl.reporting.results import SectionResults, size_difference
from calmctl.reporting.spread import Spread

Outcome = Literal["better", "worse", "within the spread", "equal", "not run"]
ANSWERS: dict[Outcome, str] = {
    "better": "yes by",
    "worse": "no by",
    "within the spread": "a difference smaller than the spread over seeds by",
    "equal": "no difference by",
    "not run": "not measured by",
}
"""Outcome -> the words that stand before the measures of which it is true."""


@dataclass(frozen=True)
class Comparison:
    """One system's figure against another's; `difference` is ours less theirs, whichever way is better."""

    difference: float | None
    outcome: Outcome


def compare(ours: Spread, theirs: Spread, measure: Measure) -> Comparison:
    """Compare two figures as they are shown, that is rounded.

    The spread is twice the root of the summed squares of both standard deviations over seeds: means of three seeds each
    differ by more once in forty times by chance. A figure of one run adds nothing to it.
    """
    if ours.mean is None or theirs.mean is None:
        return Comparison(None, "not run")
    difference = round(ours.mean, measure.digits) - round(theirs.mean, measure.digits)
    if not round(difference, measure.digits):
        return Comparison(0.0, "equal")
    if abs(difference) < 2 * math.hypot(ours.std or 0.0, theirs.std or 0.0):
        return Comparison(difference, "within the spread")
    return Comparison(difference, "better" if measure.gain(difference, 0.0) > 0 else "worse")


def against_better_model(results: SectionResults, measure: Measure) -> tuple[str, Comparison]:
    """Compare the composition with the better of m_A and m_B, and say which that is."""
    spreads = {key: results.spread(key, measure) for key in (M_A, M_B)}
    known = {key: spread.mean for key, spread in spreads.items() if spread.mean is not None}
    if len(known) < len(spreads):
        return M_B, Comparison(None, "not run")
    better = max(known, key=lambda key: measure.gain(known[key], 0.0))
    return better, compare(results.spread(CALM, measure), spreads[better], measure)


def against_lora(results: SectionResults, measure: Measure) -> Comparison:
    """Compare the composition with LoRA."""
    return compare(results.spread(CALM, measure), results.spread(LORA, measure), measure)


def headline(results: SectionResults) -> tuple[str, ...]:
    """Return the sentences that answer the section's question from what was measured, whichever way it falls."""
    measures = results.measured(results.section.measures)
    if not measures:
        return (f"Nothing that the report knows of was measured: {NOT_RUN}.",)
    models = [(against_better_model(results, measure)[1].outcome, measure) for measure in measures]
    lora = [(against_lora(results, measure).outcome, measure) for measure in measures]
    return (
        f"Does composition give more than either model? {_answer(models)}.",
        f"More than LoRA on the same data{_lora_size(results)}? {_answer(lora)}.",
        *(_figures(results, measure) for measure in results.measured(results.section.primary)),
        *_languages(results),
        *_seeds(results),
    )


def _answer(outcomes: Sequence[tuple[Outcome, Measure]]) -> str:
    parts = []
    for outcome, words in ANSWERS.items():
        if labels := [measure.label for found, measure in outcomes if found == outcome]:
            parts.append(f"{words} {_listed(labels)}")
    return _sentence("; ".join(parts))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _lora_size(results: SectionResults) -> str:
    system = results.system(LORA)
    difference = size_difference(results, system) if system else None
    if difference is None:
        return ""
    if abs(difference) < 0.05:
        return " at equal parameters"
    return f" (it has {abs(difference):.1f} percent {'more' if difference > 0 else 'fewer'} parameters)"


def _figures(results: SectionResults, measure: Measure) -> str:
    shown = []
    for key, name in ((CALM, "composed"), (M_A, "m_A"), (M_B, "m_B"), (LORA, "LoRA")):
        spread = results.spread(key, measure)
        shown.append(f"{name} {Number(spread.mean, spread=spread.std, digits=measure.digits).main()}")
    lower = " (lower is better)" if measure.is_lower_better else ""
    return _sentence(f"{measure.label}{lower}: {', '.join(shown)}.")


def _languages(results: SectionResults) -> list[str]:
    """Say in how many languages the composition is above m_B, where the section has languages."""
    sentences = []
    for grouped in results.section.grouped:
        count, total = results.above(CALM, grouped.measure)
        if grouped.is_plotted and total:
            sentences.append(f"{count} of {total} by {grouped.measure.label}")
    if not sentences:
        return []
    paper = paper_table("table5").figure(CALM, results.section.paper_above)
    told = f" In the paper: {paper:.0f} of 192 by chrF." if paper is not None else ""
    return [f"Languages in which the composition is better than m_B: {_listed(sentences)}.{told}"]


def _seeds(results: SectionResults) -> list[str]:
    system = results.system(CALM)
    if system is None:
        return []
    if len(system.runs) > 1:
        seeds = ", ".join(str(run.seed) for run in system.runs)
        return [f"Mean ± sample standard deviation over seeds {seeds}; a figure without ± is of one run."]
    return ["One seed: how much of a difference is chance was not measured."]


def answers_table(results: SectionResults) -> Table:
    """Return every measure of the models and LoRA, and how the composition compares."""
    columns = (
        Column("measure", is_text=True),
        *(Column(name) for name in ("m_A", "m_B", "CALM", "LoRA")),
        Column("against the better model", is_text=True),
        Column("against LoRA", is_text=True),
    )
    rows: list[tuple[Cell, ...]] = []
    for measure in results.measured(results.section.measures):
        better, models = against_better_model(results, measure)
        figures = (number_of(results, key, measure) for key in (M_A, M_B, CALM, LORA))
        lower = " (lower is better)" if measure.is_lower_better else ""
        told = (_told(models, measure, better), _told(against_lora(results, measure), measure))
        rows.append(table_row(Text(f"{measure.label}{lower}"), *figures, *told))
    caption = (
        "Differences: CALM's figure less the other's. Within the spread: smaller than twice the root of the summed"
        " squares of both standard deviations over seeds; a model of one run adds none. What the choice of test"
        " records adds is the standard_error of each evaluation."
    )
    return Table("Composition against either model and against LoRA", columns, tuple(rows), caption)


def number_of(
    results: SectionResults, key: str, measure: Measure, paper: float | None = None, note: str = ""
) -> Number:
    """Return a system's figure over a whole task as a cell that links to its evaluations."""
    spread = results.spread(key, measure)
    href = results.href(key, measure.task) if spread.values else ""
    return Number(spread.mean, paper, spread.std, measure.digits, href, note)


def _told(found: Comparison, measure: Measure, other: str = "") -> Text:
    if found.difference is None:
        return Text(NOT_RUN)
    against = f" than {other}" if other and found.outcome in ("better", "worse") else ""
    return Text(f"{signed(found.difference, measure.digits)}: {found.outcome}{against}")
