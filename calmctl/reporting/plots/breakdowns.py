"""Plots of breakdowns (figures by group of records): lines over a number, or bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from calmctl.reporting.measures import Breakdown, Measure
from calmctl.reporting.plots.style import ABSENT, BLANK, WIDTH, colour_of, percent_axis, style, to_png
from calmctl.reporting.results import Results, System
from calmctl.reporting.systems_table import system_row


def breakdown_plot(results: Results, breakdown: Breakdown) -> bytes:
    """Draw a breakdown, one panel per measure; whiskers of lines are 95 percent Wilson intervals over the records."""
    systems = results.broken_down(breakdown)
    with style():
        return (_lines if breakdown.plot == "lines" else _bars)(results, breakdown, systems)


def _lines(results: Results, breakdown: Breakdown, systems: Sequence[System]) -> bytes:
    rows = math.ceil(len(breakdown.measures) / 2)
    figure = Figure(figsize=(WIDTH, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for axes, measure in zip(panels.flat, breakdown.measures, strict=False):
        for index, system in enumerate(systems):
            shift = (index - (len(systems) - 1) / 2) * 0.09  # keeps overlapping lines visible
            _line(axes, results, breakdown, measure, system, shift)
        axes.set_title(measure.label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_axis(panels[0, 0], top=104, bottom=-4)
    figure.supxlabel(f"number of {breakdown.column}", fontsize=11)
    figure.supylabel("percent", fontsize=11)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return to_png(figure)


def _line(axes: Axes, results: Results, breakdown: Breakdown, measure: Measure, system: System, shift: float) -> None:
    places, values, below, above = [], [], [], []
    for group in results.breakdown_groups(breakdown):
        value = results.group_spread(system.key, measure, group, breakdown.dimension).mean
        if value is not None:
            low, high = wilson_interval(value, results.group_size(system.key, breakdown, group))
            places.append(int(group) + shift)
            values.append(value)
            below.append(value - low)
            above.append(high - value)
    row, is_model = system_row(system.key), system.group == "models"
    axes.errorbar(
        places,
        values,
        [below, above],
        color=row.colour,
        marker=row.marker,
        label=system.label,
        capsize=2.5,
        elinewidth=1,
        linestyle="-" if is_model else "--",
        linewidth=2 if is_model else 1.2,
        markersize=6.5 if is_model else 5,
    )


def _bars(results: Results, breakdown: Breakdown, systems: Sequence[System]) -> bytes:
    groups, count = results.breakdown_groups(breakdown), len(breakdown.measures)
    figure = Figure(figsize=(WIDTH, 2.2 * count), layout="constrained")
    panels = list(figure.subplots(count, 1, sharex=True, sharey=True, squeeze=False).flat)
    width = 0.8 / max(len(systems), 1)
    for axes, measure in zip(panels, breakdown.measures, strict=True):
        for index, system in enumerate(systems):
            for place, group in enumerate(groups):
                value = results.group_spread(system.key, measure, group, breakdown.dimension).mean
                _bar(axes, place + (index - (len(systems) - 1) / 2) * width, width * 0.92, value, system)
        axes.set_title(measure.label)
    panels[-1].set_xticks(range(len(groups)), [f"{breakdown.column} {breakdown.labels[group]}" for group in groups])
    percent_axis(panels[0], top=116)
    figure.supylabel("percent", fontsize=11)
    handles = [Patch(color=colour_of(system.key), label=system.label) for system in systems]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return to_png(figure)


def _bar(axes: Axes, middle: float, width: float, value: float | None, system: System) -> None:
    """Draw a vertical bar with its figure above it, or the words "not run"."""
    if value is None:
        axes.annotate("not run", (middle, 2), rotation=90, ha="center", va="bottom", fontsize=8, color=ABSENT)
        return
    axes.bar(middle, value, width, color=colour_of(system.key))
    axes.annotate(
        f"{value:.1f}", (middle, value), (0, 2.5), textcoords="offset points", ha="center", fontsize=8, bbox=BLANK
    )


def wilson_interval(value: float, size: int | None) -> tuple[float, float]:
    """Return the 95 percent interval of a percentage over `size` records; (value, value) if the size is unknown."""
    if not size:
        return value, value
    share, z = min(max(value / 100, 0.0), 1.0), 1.959964
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return min(100 * (centre - half), value), max(100 * (centre + half), value)
