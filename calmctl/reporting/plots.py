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
from calmctl.reporting.plot_style import COLOURS, MARKERS, WIDTH, bar, percent_axis, style, to_png


def table1_plot(results: KVResults) -> bytes:
    """Draw Table 1 as grouped bars beside the paper's, and the direct protocol apart."""
    paper = paper_table("table1")
    with style():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
        width = 0.14
        for place, metric in enumerate((KV_SUBS, NUM_MATH, KV_MATH)):
            for index, system in enumerate(MODELS):
                middle = place + (index - 1) * 2.1 * width
                bar(left, middle - width / 2, width, results.figure(system, metric), system)
                bar(left, middle + width / 2, width, paper.figure(system.key, metric.key), system, True)
        left.set_xticks(range(3), ["KV-SUBS", "NUM-MATH", "KV-MATH\n(stepwise)"])
        left.set_ylabel("exact match, percent")
        for index, system in enumerate(MODELS):
            bar(right, (index - 1) * 0.28, 0.24, results.figure(system, KV_MATH_DIRECT), system)
        right.set_xticks([0], ["KV-MATH\n(direct)"])
        right.set_xlim(-0.6, 0.6)
        right.set_title("no paper figure", fontsize=10, fontweight="normal", color="#555555", loc="center")
        right.tick_params(axis="y", left=False)
        percent_axis(left)
        handles = [Patch(color=COLOURS[system.key], label=system.label) for system in MODELS]
        handles.append(Patch(facecolor="#DDDDDD", edgecolor="#555555", hatch="////", label="paper"))
        figure.legend(handles=handles, loc="outside upper center", ncols=4, columnspacing=1.2)
        return to_png(figure)


def controls_plot(results: KVResults) -> bytes:
    """Draw the composed model and its controls, one panel a metric, names beside the bars."""
    systems = [system for system in reversed(SYSTEMS) if system.key != "m_A"]
    with style({"axes.grid.axis": "x", "xtick.bottom": True}):
        figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, metric in zip(panels.flat, METRICS, strict=True):
            for place, system in enumerate(systems):
                value = results.figure(system, metric)
                axes.barh(place, value or 0, 0.7, color=COLOURS[system.key])
                label = "not run" if value is None else f"{value:.1f}"
                axes.annotate(label, (value or 0, place), (3, 0), textcoords="offset points", va="center",
                              fontsize=9.5, color="#777777" if value is None else "#222222")  # fmt: skip
            axes.set_title(metric.label)
            axes.set_xlim(0, 118)
            axes.set_xticks(range(0, 101, 25))
            axes.set_yticks(range(len(systems)), [system.short for system in systems])
            axes.tick_params(axis="y", left=False)
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


def _operand_line(
    axes: Axes, slices: Mapping[int, Slice], metric: Metric, system: System, shift: float
) -> None:
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
    with style():
        panels = 1 + (has_exact or has_level)
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        axes = list(figure.subplots(1, panels, squeeze=False).flat)
        _loss_curve(axes[0], training)
        if has_exact:
            steps, values = training.series("exact_match")
            axes[1].plot(steps, [100 * value for value in values], color="#009E73", linewidth=1.5)
            axes[1].set_title("running exact match, percent")
            percent_axis(axes[1], top=104)
        if has_level:
            _level_curve(axes[1], training, is_alone=not has_exact)
        for panel in axes:
            panel.set_xlabel("step")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        figure.suptitle(f"{training.label}: {training.name}", x=0.01, ha="left", fontsize=12)
        return to_png(figure)


def _loss_curve(axes: Axes, training: Training) -> None:
    steps, losses = training.series("loss")
    axes.plot(steps, losses, color="#0072B2", linewidth=1.5, marker="." if len(steps) < 3 else "")
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
    panel.step(steps, levels, where="post", color="#D55E00", linewidth=1.5, linestyle="--")
    panel.set_ylabel("operands (curriculum)", color="#D55E00", fontsize=10)
    panel.tick_params(axis="y", colors="#D55E00", right=not is_alone)
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
