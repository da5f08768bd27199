"""Plots of the key-value experiment as PNG bytes, in colours that colour-blind readers can tell apart.

One colour a model throughout; the paper's bars are lighter and hatched beside the measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from calmctl.reporting.kv_results import (
    AUG,
    KV_MATH,
    KV_MATH_DIRECT,
    KV_SUBS,
    METRICS,
    NUM_MATH,
    STRATA,
    KVResults,
    Metric,
    Slice,
    System,
)
from calmctl.reporting.paper import paper_table
from calmctl.reporting.plots.style import (
    COLOURS,
    MARKERS,
    SIDEWAYS,
    WIDTH,
    bar,
    bar_sideways,
    names_on_axis,
    percent_axis,
    style,
    to_png,
)


def table1_plot(results: KVResults) -> bytes:
    """Draw Table 1 as bars, each measured one above the paper's; the direct protocol has no paper figure."""
    paper = paper_table("table1")
    with style(SIDEWAYS):
        figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, metric in zip(panels.flat, METRICS, strict=True):
            for place, system in enumerate(reversed(results.models)):
                expected = paper.figure(system.key, metric.key)
                shift = 0.0 if metric is KV_MATH_DIRECT else 0.2
                bar_sideways(axes, place + shift, 0.36, results.figure(system, metric), system)
                if expected is not None:
                    bar_sideways(axes, place - shift, 0.36, expected, system, is_paper=True)
            axes.set_title(metric.label)
            names_on_axis(axes, [system.short for system in reversed(results.models)])
        panels[1, 1].annotate("no paper figure", (0.97, 0.05), xycoords="axes fraction", ha="right", color="#555555")
        figure.supxlabel("exact match on held-out keys, percent", fontsize=11)
        handles = [Patch(color="#666666", label="measured")]
        handles.append(Patch(facecolor="#E4E4E4", edgecolor="#666666", hatch="////", label="paper"))
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return to_png(figure)


def controls_plot(results: KVResults) -> bytes:
    """Draw the composed model, m_B and the controls, one panel a metric."""
    systems = [system for system in reversed(results.systems) if system is not AUG]
    with style(SIDEWAYS):
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, metric in zip(panels.flat, METRICS, strict=True):
            for place, system in enumerate(systems):
                bar_sideways(axes, place, 0.7, results.figure(system, metric), system)
            axes.set_title(metric.label)
            names_on_axis(axes, [system.short for system in systems])
        figure.supxlabel("exact match on held-out keys, percent", fontsize=11)
        return to_png(figure)


def operands_plot(results: KVResults) -> bytes:
    """Draw accuracy against the number of operands, a panel a metric, with 95 percent intervals (Wilson)."""
    systems = [system for system in results.systems if system.key in results.evaluations]
    with style():
        figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, metric in zip(panels.flat, (KV_MATH, KV_MATH_DIRECT, NUM_MATH, KV_SUBS), strict=True):
            for index, system in enumerate(systems):
                shift = (index - (len(systems) - 1) / 2) * 0.09  # lines on top of one another stay visible
                _operand_line(axes, results.evaluations[system.key].by_num_operands, metric, system, shift)
            axes.set_title(metric.label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        percent_axis(panels[0, 0], top=104, bottom=-4)
        figure.supxlabel("number of operands", fontsize=11)
        figure.supylabel("exact match on held-out keys, percent", fontsize=11)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        return to_png(figure)


def _operand_line(axes: Axes, slices: Mapping[int, Slice], metric: Metric, system: System, shift: float) -> None:
    counts, values, below, above = [], [], [], []
    for count, part in slices.items():
        value = part.accuracies.get(metric.key)
        if value is not None:
            low, high = wilson_interval(value, part.num_examples)
            counts.append(count + shift)
            values.append(value)
            below.append(value - low)
            above.append(high - value)
    axes.errorbar(
        counts,
        values,
        [below, above],
        color=COLOURS[system.key],
        marker=MARKERS[system.key],
        label=system.short,
        capsize=2.5,
        elinewidth=1,
        linestyle="--" if system.is_control else "-",
        linewidth=1.2 if system.is_control else 2,
        markersize=5 if system.is_control else 6.5,
    )


def strata_plot(results: KVResults) -> bytes:
    """Draw held-in against mixed against held-out keys, a panel a metric that depends on keys."""
    systems = [system for system in results.systems if system.key in results.evaluations]
    with style():
        figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, sharey=True)
        width = 0.8 / max(len(systems), 1)
        for axes, metric in zip(panels, (KV_SUBS, KV_MATH, KV_MATH_DIRECT), strict=True):
            for index, system in enumerate(systems):
                parts = results.evaluations[system.key].by_stratum
                for place, stratum in enumerate(STRATA):
                    value = parts[stratum].accuracies.get(metric.key) if stratum in parts else None
                    middle = place + (index - (len(systems) - 1) / 2) * width
                    bar(axes, middle, width * 0.92, value, system)
            axes.set_title(metric.label)
        panels[-1].set_xticks(range(len(STRATA)), [f"keys {label}" for label in STRATA.values()])
        percent_axis(panels[0], top=116)
        figure.supylabel("exact match, percent", fontsize=11)
        handles = [Patch(color=COLOURS[system.key], label=system.short) for system in systems]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
        return to_png(figure)


def wilson_interval(value: float, size: int | None) -> tuple[float, float]:
    """Return the 95 percent interval of a percentage of `size` examples; itself if the size is unknown."""
    if not size:
        return value, value
    share, z = min(max(value / 100, 0.0), 1.0), 1.959964
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return min(100 * (centre - half), value), max(100 * (centre + half), value)
