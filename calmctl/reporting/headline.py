"""The headline of a report: whether the composition is better than either model, and than LoRA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from calmctl.reporting.document.tables import NOT_RUN, Cell, Column, Number, Table, Text, signed, table_row
from calmctl.reporting.measures import Measure, paper_figure
from calmctl.reporting.paper import paper_table
from calmctl.reporting.results import Results, size_difference
from calmctl.reporting.systems_table import CALM, LORA, M_A, M_B, RANDOM
from calmctl.reporting.values import Spread

Outcome = Literal["better", "worse", "within the spread", "equal", "not run"]
KEPT_WITHIN_POINTS, KEPT_WITHIN_SHARE = 2.0, 0.02
"""How much the composition may lose of m_B's abilities: in points, or as a fraction of bits per byte.

In the paper's table 1 it loses 1.7 points.
"""
ANSWERS: dict[Outcome, str] = {
    "better": "yes by",
    "worse": "no by",
    "within the spread": "a difference smaller than the spread over seeds by",
    "equal": "no difference by",
    "not run": "not measured by",
}
"""Outcome -> the words before the list of measures with this outcome."""


@dataclass(frozen=True)
class Difference:
    """How two figures differ; `value` is ours minus theirs, also where lower is better."""

    value: float | None
    outcome: Outcome


def difference_of(ours: Spread, theirs: Spread, measure: Measure) -> Difference:
    """Return how two figures differ, rounded as they are displayed.

    "Within the spread" means a difference below twice the root of the summed squares of both standard deviations over
    seeds: means of three seeds each exceed it by chance once in forty times. A single run counts with deviation zero.
    """
    if ours.mean is None or theirs.mean is None:
        return Difference(None, "not run")
    value = round(ours.mean, measure.digits) - round(theirs.mean, measure.digits)
    if not round(value, measure.digits):
        return Difference(0.0, "equal")
    if abs(value) < 2 * math.hypot(ours.std or 0.0, theirs.std or 0.0):
        return Difference(value, "within the spread")
    return Difference(value, "better" if measure.gain(value, 0.0) > 0 else "worse")


def against_better_model(results: Results, measure: Measure) -> tuple[str, Difference]:
    """Return the better one of m_A and m_B, and how the composition differs from it."""
    spreads = {key: results.spread(key, measure) for key in (M_A, M_B)}
    known = {key: spread.mean for key, spread in spreads.items() if spread.mean is not None}
    if len(known) < len(spreads):
        return M_B, Difference(None, "not run")
    better = max(known, key=lambda key: measure.gain(known[key], 0.0))
    return better, difference_of(results.spread(CALM, measure), spreads[better], measure)


def against_lora(results: Results, measure: Measure) -> Difference:
    """Compare the composition with LoRA."""
    return difference_of(results.spread(CALM, measure), results.spread(LORA, measure), measure)


def headline(results: Results) -> tuple[str, ...]:
    """Return the sentences that answer the experiment's question, whether the answer is yes or no."""
    measures = results.layout.sought or results.measured(results.layout.measures)
    if not results.measured(results.layout.measures):
        return (f"Nothing that the report knows of was measured: {NOT_RUN}.",)
    ranked = [_ranking(results, measure) for measure in results.measured(results.layout.ranked)]
    if results.system(CALM) is None:
        return (*ranked, *_seeds(results))
    models = [(against_better_model(results, measure)[1].outcome, measure) for measure in measures]
    lora = [(against_lora(results, measure).outcome, measure) for measure in measures]
    return (
        *(_against_paper(results, measure) for measure in results.layout.sought),
        f"Does composition give more than either model? {_answer(models)}.",
        *([f"More than LoRA on the same data{_lora_size(results)}? {_answer(lora)}."] if results.system(LORA) else []),
        *ranked,
        *(_figures(results, each) for each in results.measured(results.layout.primary) if not ranked),
        *(_kept(results, measure) for measure in results.measured(results.layout.kept)),
        *_languages(results),
        *_seeds(results),
    )


def _against_paper(results: Results, measure: Measure) -> str:
    """Return the sentence that compares the composition with the paper's figure."""
    ours, paper = results.spread(CALM, measure).mean, paper_figure(CALM, measure)
    if paper is None:
        return f"{measure.label}, composed: {NOT_RUN if ours is None else f'{ours:.{measure.digits}f}'}."
    if ours is None:
        return f"{measure.label}, composed: {NOT_RUN} (paper: {paper:.1f})."
    difference = signed(round(ours, measure.digits) - paper, measure.digits)
    return f"{measure.label}, composed: {ours:.{measure.digits}f} percent, paper {paper:.1f} ({difference} points)."


def _kept(results: Results, measure: Measure) -> str:
    """Return a sentence on whether the composition keeps an ability of m_B."""
    composed, alone = results.spread(CALM, measure).mean, results.spread(M_B, measure).mean
    if composed is None or alone is None:
        return f"Whether m_B's {measure.label} is kept is not known: {NOT_RUN}."
    shown = f"{composed:.{measure.digits}f} composed against {alone:.{measure.digits}f} alone"
    if not measure.is_lower_better and alone <= KEPT_WITHIN_POINTS:
        return f"m_B has no {measure.label} that could be kept: {shown}."
    gain = measure.gain(round(composed, measure.digits), round(alone, measure.digits))
    within = alone * KEPT_WITHIN_SHARE if measure.is_lower_better else KEPT_WITHIN_POINTS
    limit = f"{KEPT_WITHIN_SHARE:.0%}" if measure.is_lower_better else f"{KEPT_WITHIN_POINTS:.0f} points"
    papers = [paper_figure(key, measure) for key in (CALM, M_B)] if measure.same_records else []
    told = f"; in the paper {papers[0]:.1f} against {papers[1]:.1f}" if papers and None not in papers else ""
    return f"m_B's {measure.label} is {'' if gain >= -within else 'not '}kept: {shown} (at most {limit} worse{told})."


def _answer(outcomes: Sequence[tuple[Outcome, Measure]]) -> str:
    parts = []
    for outcome, words in ANSWERS.items():
        if labels := [measure.label for found, measure in outcomes if found == outcome]:
            is_all = len(labels) == len(outcomes) > 3
            parts.append(f"{words} {f'all {len(labels)} measures' if is_all else _listed(labels)}")
    return _sentence("; ".join(parts))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _lora_size(results: Results) -> str:
    system = results.system(LORA)
    difference = size_difference(results, system) if system else None
    if difference is None:
        return ""
    if abs(difference) < 0.05:
        return " at equal parameters"
    return f" (it has {abs(difference):.1f} percent {'more' if difference > 0 else 'fewer'} parameters)"


def _figures(results: Results, measure: Measure) -> str:
    shown = []
    for key, name in ((CALM, "composed"), (M_A, "m_A"), (M_B, "m_B"), (RANDOM, "random m_A"), (LORA, "LoRA")):
        if key in (LORA, RANDOM) and not results.system(key):
            continue
        spread = results.spread(key, measure)
        shown.append(f"{name} {Number(spread.mean, spread=spread.std, digits=measure.digits).main()}")
    lower = " (lower is better)" if measure.is_lower_better else ""
    return _sentence(f"{measure.label}{lower}: {', '.join(shown)}.")


def _ranking(results: Results, measure: Measure) -> str:
    """Return the sentence that lists the models and methods by a measure, the best first."""
    systems = [each for group in ("models", "m_A", "methods", "place") for each in results.group(group)]
    found = [(results.spread(system.key, measure), system.label) for system in systems]
    known = [(spread, label) for spread, label in found if spread.mean is not None]
    known.sort(key=lambda each: -measure.gain(each[0].mean or 0.0, 0.0))
    shown = (f"{label} {Number(each.mean, spread=each.std, digits=measure.digits).main()}" for each, label in known)
    return _sentence(f"{measure.label}: {', '.join(shown)}.")


def _languages(results: Results) -> list[str]:
    """Return a sentence on the number of languages in which the composition beats m_B, if the layout plots any."""
    sentences = []
    for grouped in results.layout.grouped:
        count, total = results.above(CALM, grouped.measure)
        if grouped.is_plotted and total:
            sentences.append(f"{count} of {total} by {grouped.measure.label}")
    if not sentences:
        return []
    paper = paper_table("table5").figure(CALM, results.layout.paper_above)
    told = f" In the paper: {paper:.0f} of 192 by chrF." if paper is not None else ""
    return [f"Languages in which the composition is better than m_B: {_listed(sentences)}.{told}"]


def _seeds(results: Results) -> list[str]:
    system = results.system(CALM) or max(results.systems, key=lambda each: len(each.runs))
    if len(system.runs) > 1:
        seeds = ", ".join(str(run.seed) for run in system.runs)
        return [f"Mean ± sample standard deviation over seeds {seeds}; a figure without ± is of one run."]
    return ["One seed: how much of a difference is chance was not measured."]


def answers_tables(results: Results) -> tuple[Table, ...]:
    """Return a table of every measure for the models and LoRA, and how the composition, if there is one, differs."""
    if results.system(CALM) is None:
        return ()
    has_lora = results.system(LORA) is not None
    models = {M_A: "m_A", M_B: "m_B", CALM: "CALM"} | ({LORA: "LoRA"} if has_lora else {})
    told_of = ("against the better model", *(["against LoRA"] if has_lora else []))
    columns = (
        Column("measure", is_text=True),
        *(Column(name) for name in models.values()),
        *(Column(name, is_text=True) for name in told_of),
    )
    rows: list[tuple[Cell, ...]] = []
    for measure in results.measured(results.layout.measures):
        better, found = against_better_model(results, measure)
        figures = (number_of(results, key, measure) for key in models)
        lower = " (lower is better)" if measure.is_lower_better else ""
        told = [_told(found, measure, better)]
        if has_lora:
            told.append(_told(against_lora(results, measure), measure))
        rows.append(table_row(Text(f"{measure.label}{lower}"), *figures, *told))
    caption = (
        "Differences: CALM's figure less the other's. Within the spread: smaller than twice the root of the summed"
        " squares of both standard deviations over seeds; a model of one run adds none. What the choice of test"
        " records adds is the standard_error of each evaluation."
    )
    title = f"Composition against either model{' and against LoRA' if has_lora else ''}"
    return (Table(title, columns, tuple(rows), caption),)


def number_of(results: Results, key: str, measure: Measure, paper: float | None = None, note: str = "") -> Number:
    """Return a system's figure over all records of a task as a cell that links to its evaluations."""
    spread = results.spread(key, measure)
    href = results.href(key, measure.task) if spread.values else ""
    return Number(spread.mean, paper, spread.std, measure.digits, href, note)


def _told(found: Difference, measure: Measure, other: str = "") -> Text:
    if found.value is None:
        return Text(NOT_RUN)
    against = f" than {other}" if other and found.outcome in ("better", "worse") else ""
    return Text(f"{signed(found.value, measure.digits)}: {found.outcome}{against}")
