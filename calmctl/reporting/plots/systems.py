"""Plots of systems: gains over m_B by language, and bars of every system."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from calmctl.reporting.measures import Grouped, Measure, paper_figure
from calmctl.reporting.plots.style import BLANK, SIDEWAYS, WIDTH, colour_of, style, to_png
from calmctl.reporting.results import Results, System
from calmctl.reporting.systems_table import CALM, GROUPS, LORA, M_B

MOST_NAMED = 40
"""Up to this many languages are drawn in one column with their names; more in several columns with their codes."""
ROWS_OF_A_COLUMN = 52
MOST_BESIDE = 3
"""Maximum number of measures in a row of panels in the plot of all systems."""
WORSE = "#B0B0B0"


def gains_plot(results: Results, grouped: Grouped) -> bytes:
    """Draw the composition's gain over m_B in each language, from low to high resource (the paper's figure 2).

    Whiskers are the composition's standard deviations over seeds; diamonds are LoRA.
    """
    measure = grouped.measure
    codes = [code for code in results.groups(measure) if _gain(results, CALM, measure, code) is not None]
    is_named = len(codes) <= MOST_NAMED
    num_columns = 1 if is_named else math.ceil(len(codes) / ROWS_OF_A_COLUMN)
    height = math.ceil(len(codes) / num_columns)
    with style({**SIDEWAYS, "ytick.left": False}):
        size = (WIDTH, 1.3 + (0.27 if is_named else 0.145) * height)
        figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(1, num_columns, squeeze=False, sharex=True).flat)
        for number, axes in enumerate(panels):
            part = codes[number * height : (number + 1) * height]
            _gains(axes, results, measure, part, is_named)
            axes.set_ylim(height - 0.4, -0.6)
        better = "fewer bits per byte" if measure.is_lower_better else "points"
        figure.supxlabel(f"{measure.label}: how much better than m_B, in {better}", fontsize=11)
        handles: list[Patch | Line2D] = [
            Patch(color=colour_of(CALM), label="CALM"),
            Patch(color=WORSE, label="CALM, worse"),
        ]
        if results.system(LORA):
            handles.append(
                Line2D([], [], marker="D", color=colour_of(LORA), linestyle="", label="LoRA", markersize=4.5)
            )
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
        return to_png(figure)


def _gains(axes: Axes, results: Results, measure: Measure, codes: Sequence[str], is_named: bool) -> None:
    places, gains = range(len(codes)), [_gain(results, CALM, measure, code) or 0.0 for code in codes]
    errors = [results.group_spread(CALM, measure, code).std or 0.0 for code in codes]
    colours = [colour_of(CALM) if gain > 0 else WORSE for gain in gains]
    axes.barh(places, gains, 0.74, color=colours)
    if is_named and any(errors):
        axes.errorbar(gains, places, xerr=errors, color="#222222", linestyle="", elinewidth=1)
    others = [(gain, place) for place in places if (gain := _gain(results, LORA, measure, codes[place])) is not None]
    if others:
        size = 4.5 if is_named else 2.6
        axes.plot(*zip(*others, strict=True), marker="D", color=colour_of(LORA), markersize=size, linestyle="")
    names = [results.name(measure, code) if is_named else code for code in codes]
    axes.set_yticks(range(len(codes)), names, fontsize=10 if is_named else 6.3)
    axes.tick_params(axis="x", labelsize=10 if is_named else 8)
    axes.axvline(0, color="#222222", linewidth=1)


def _gain(results: Results, key: str, measure: Measure, code: str) -> float | None:
    ours, theirs = (results.group_spread(system, measure, code).mean for system in (key, M_B))
    return None if ours is None or theirs is None else measure.gain(ours, theirs)


def systems_plot(results: Results, measures: Sequence[Measure]) -> bytes:
    """Draw every system as a bar, grouped under headings, one panel per measure.

    Whiskers are standard deviations over seeds; a stroke is the paper's figure, if it is over the same records.
    """
    headings, bars, place = [], [], 0.0
    for group in GROUPS:
        if systems := results.group(group):
            headings.append((place, results.heading(group)))
            bars += [(place + 1 + number, system) for number, system in enumerate(systems)]
            place += len(systems) + 1.25
    num_rows = math.ceil(len(measures) / MOST_BESIDE)
    num_columns = math.ceil(len(measures) / num_rows)
    with style(SIDEWAYS):
        figure = Figure(figsize=(WIDTH, num_rows * (1.2 + 0.28 * place)), layout="constrained")
        panels = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
        for axes, measure in zip(panels.flat, measures, strict=False):
            _bars(axes, results, bars, measure, 54 // num_columns)
        for axes in panels.flat[len(measures) :]:
            axes.set_axis_off()
        rows = [*headings, *((y, system.label) for y, system in bars)]
        for axes in panels[:, 0]:
            axes.set_yticks([y for y, _ in rows], [textwrap.fill(label, 34) for _, label in rows])
            for label in axes.get_yticklabels()[: len(headings)]:
                label.set(fontsize=9, fontweight="bold")
        panels[0, 0].set_ylim(place - 0.6, -0.6)
        if any(measure.same_records for measure in measures):
            figure.supxlabel("stroke: the paper's figure", fontsize=9)
        return to_png(figure)


def _bars(
    axes: Axes, results: Results, bars: Sequence[tuple[float, System]], measure: Measure, characters: int
) -> None:
    largest = 0.0
    for y, system in bars:
        spread = results.spread(system.key, measure)
        if spread.mean is None:
            continue
        largest = max(largest, spread.mean + (spread.std or 0.0))
        axes.barh(y, spread.mean, 0.72, color=colour_of(system.key), xerr=spread.std, error_kw={"elinewidth": 1})
        axes.annotate(
            f"{spread.mean:.{measure.digits}f}",
            (spread.mean + (spread.std or 0.0), y),
            (4, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=9,
            bbox=BLANK,
        )
        paper = paper_figure(system.key, measure) if measure.same_records else None
        if paper is not None:
            axes.plot(paper, y, marker="|", markersize=13, markeredgewidth=2, color="#222222", zorder=3)
            largest = max(largest, paper)
    axes.set_xlim(0, 1.25 * largest or 1.0)
    axes.tick_params(axis="y", left=False)
    axes.set_title(textwrap.fill(measure.label, characters), fontsize=10)
    axes.set_xlabel("lower is better" if measure.is_lower_better else "percent")
