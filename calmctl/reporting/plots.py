"""Plots of the key-value experiment as PNG bytes, in colours that colour-blind readers can tell apart.

One colour a model throughout; the paper's bars are lighter and hatched beside the measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from calmctl.reporting.kv_results import (
    AUG,
    KV_MATH,
    KV_MATH_DIRECT,
    KV_SUBS,
    METRICS,
    MODELS,
    NUM_MATH,
    STRATA,
    SYSTEMS,
    KVResults,
    Metric,
    Slice,
    System,
    Training,
)
from calmctl.reporting.paper import paper_table
from calmctl.reporting.plot_style import (
    COLOURS,
    LEVEL_COLOUR,
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
            for place, system in enumerate(reversed(MODELS)):
                expected = paper.figure(system.key, metric.key)
                shift = 0.0 if metric is KV_MATH_DIRECT else 0.2
                bar_sideways(axes, place + shift, 0.36, results.figure(system, metric), system)
                if expected is not None:
                    bar_sideways(axes, place - shift, 0.36, expected, system, is_paper=True)
            axes.set_title(metric.label)
            names_on_axis(axes, [system.short for system in reversed(MODELS)])
        panels[1, 1].annotate("no paper figure", (0.97, 0.05), xycoords="axes fraction", ha="right", color="#555555")
        figure.supxlabel("exact match on held-out keys, percent", fontsize=11)
        handles = [Patch(color="#666666", label="measured")]
        handles.append(Patch(facecolor="#E4E4E4", edgecolor="#666666", hatch="////", label="paper"))
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return to_png(figure)


def controls_plot(results: KVResults) -> bytes:
    """Draw the composed model, m_B and the controls, one panel a metric."""
    systems = [system for system in reversed(SYSTEMS) if system is not AUG]
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
    systems = [system for system in SYSTEMS if system.key in results.evaluations]
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
    systems = [system for system in SYSTEMS if system.key in results.evaluations]
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


def training_plot(training: Training) -> bytes:
    """Draw a training run's loss and, where its log has them, running exact match and curriculum level."""
    has_exact, has_level = (bool(training.series(field)[0]) for field in ("exact_match", "num_operands"))
    colour = COLOURS[training.system]
    with style():
        num_panels = 1 + (has_exact or has_level)
        figure = Figure(figsize=(5.8, 2.9), layout="constrained")
        panels = list(figure.subplots(1, num_panels, squeeze=False).flat)
        _loss_curve(panels[0], training, colour)
        if has_exact:
            steps, values = training.series("exact_match")
            panels[1].plot(steps, [100 * value for value in values], color=colour, linewidth=1.6)
            panels[1].set_title("exact match, percent")
            percent_axis(panels[1], top=104)
        if has_level:
            _level_curve(panels[1], training, is_alone=not has_exact)
        for panel in panels:
            panel.set_xlabel("step")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        figure.suptitle(f"{training.label}, run {training.name}", x=0.01, ha="left", fontsize=12)
        return to_png(figure)


def _loss_curve(axes: Axes, training: Training, colour: str) -> None:
    steps, losses = training.series("loss")
    axes.plot(steps, losses, color=colour, linewidth=1.6, marker="." if len(steps) < 3 else "")
    axes.set_title("loss")
    if losses and min(losses) > 0 and max(losses) / min(losses) > 10:
        axes.set_yscale("log")
        axes.set_title("loss (log scale)")
        decades = math.log10(max(losses) / min(losses))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _level_curve(axes: Axes, training: Training, is_alone: bool) -> None:
    steps, levels = training.series("num_operands")
    panel = axes if is_alone else axes.twinx()
    panel.step(steps, levels, where="post", color=LEVEL_COLOUR, linewidth=1.4, linestyle="--")
    panel.set_ylabel("operands (curriculum, dashed)", color=LEVEL_COLOUR, fontsize=9.5)
    panel.tick_params(axis="y", colors=LEVEL_COLOUR, right=not is_alone)
    panel.set_ylim(0, max(levels) + 0.5)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(visible=is_alone)


def wilson_interval(value: float, size: int | None) -> tuple[float, float]:
    """Return the 95 percent interval of a percentage of `size` examples; itself if the size is unknown."""
    if not size:
        return value, value
    share, z = min(max(value / 100, 0.0), 1.0), 1.959964
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return min(100 * (centre - half), value), max(100 * (centre + half), value)
