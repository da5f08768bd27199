"""Plots of table 5 on the key-value task as PNG bytes: every variant, and accuracy against keys and against size."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from calmctl.reporting.kv_ablations import GROUPS, AblationRow, KVAblations
from calmctl.reporting.kv_results import CALM, KV_MATH
from calmctl.reporting.plots.style import (
    BLANK,
    COLOURS,
    OTHER_METHODS,
    SIDEWAYS,
    WIDTH,
    lighter,
    names_on_axis,
    percent_axis,
    style,
    to_png,
)

METHOD_MARKERS = ("s", "D", "v", "^", "P", "X")
"""Markers of the other methods, in the order of their rows: matched to one size, they stand above one another."""


def _colour(row: AblationRow) -> str:
    if row.key in COLOURS:
        return COLOURS[row.key]
    return OTHER_METHODS if row.group == "baselines" else lighter(COLOURS[CALM.key], 0.45)


def ablations_plot(ablations: KVAblations) -> bytes:
    """Draw held-out KV-MATH of every model as bars, under a heading for each thing that is varied."""
    groups = [(group, ablations.group(group)) for group in GROUPS if ablations.group(group)]
    # Places count downwards: a heading takes one, a bar one.
    headings, bars, place = [], [], 0.0
    for group, rows in groups:
        headings.append((place, ablations.heading(group)))
        bars += [(place + 1 + number, row) for number, row in enumerate(rows)]
        place += len(rows) + 1.25
    with style(SIDEWAYS):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.24 * place), layout="constrained")
        axes = figure.subplots()
        for y, row in bars:
            value = row.metrics[KV_MATH.key]
            axes.barh(y, value, 0.72, color=_colour(row))
            axes.annotate(
                f"{value:.1f}",
                (value, y),
                (5, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=9.5,
                bbox=BLANK,
            )
        for y, heading in headings:
            axes.annotate(
                heading,
                (0, y),
                (4, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=10,
                fontweight="bold",
                bbox=BLANK,
            )
        names_on_axis(axes, [])
        axes.set_yticks([y for y, _ in bars], [row.label for _, row in bars])
        axes.set_ylim(place - 0.6, -0.6)
        axes.set_xlabel("stepwise KV-MATH on held-out keys, percent")
        return to_png(figure)


def scaling_plot(ablations: KVAblations) -> bytes:
    """Draw held-out KV-MATH against the share of the keys in D_C, and against the number of trained parameters."""
    with style():
        figure = Figure(figsize=(WIDTH, 4.7), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _by_share(left, ablations)
        _by_size(right, ablations)
        percent_axis(left, top=106, bottom=-4)
        figure.supylabel("stepwise KV-MATH, held-out keys, percent", fontsize=11)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9.5)
        return to_png(figure)


def _by_share(axes: Axes, ablations: KVAblations) -> None:
    points = ablations.series("share")
    shares, values = [100 * share for share, _ in points], [row.metrics[KV_MATH.key] for _, row in points]
    axes.plot(shares, values, color=COLOURS[CALM.key], marker="o", linewidth=2)
    for share, value in zip(shares, values, strict=True):
        axes.annotate(f"{value:.1f}", (share, value), (4, -14), textcoords="offset points", fontsize=9, bbox=BLANK)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("by keys in D_C")
    axes.set_xlabel("keys in D_C, percent of all")


def _by_size(axes: Axes, ablations: KVAblations) -> None:
    calm = ablations.row(CALM.key)
    colour = COLOURS[CALM.key]
    if calm is not None and calm.trainable_parameters:
        axes.scatter(calm.trainable_parameters, calm.metrics[KV_MATH.key], color=colour, label="CALM", s=46)
    series = [
        ("CALM, other connections", ablations.group("connections"), "s", colour),
        ("CALM, other heads", ablations.group("heads"), "^", colour),
        *(
            (row.label, [row], METHOD_MARKERS[number % len(METHOD_MARKERS)], OTHER_METHODS)
            for number, row in enumerate(ablations.group("baselines"))
        ),
    ]
    for label, rows, marker, edge in series:
        if sized := [row for row in rows if row.trainable_parameters]:
            sizes, values = (
                [row.trainable_parameters or 0 for row in sized],
                [row.metrics[KV_MATH.key] for row in sized],
            )
            # Hollow: what has one size and one score stays visible below another.
            axes.scatter(sizes, values, marker=marker, facecolor="none", edgecolor=edge, label=label, s=46)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title("by trained parameters")
    axes.set_xlabel("trained parameters")


def _thousands(value: float, _place: int | None = None) -> str:
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{name}"
    return f"{value:g}"
