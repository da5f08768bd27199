"""Plot of variants and methods: a measure by number of trained parameters, and by share of keys in D_C if varied."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from calmctl.reporting.measures import Measure
from calmctl.reporting.plots.style import BLANK, WIDTH, colour_of, percent_axis, style, to_png
from calmctl.reporting.results import Results, System
from calmctl.reporting.systems_table import CALM, METHOD_OF, system_row


def scaling_plot(results: Results, measure: Measure) -> bytes:
    """Draw a measure against the number of trained parameters, and left of it against the share of keys in D_C."""
    has_shares = bool(results.group("share"))
    with style():
        figure = Figure(figsize=(WIDTH, 4.7), layout="constrained")
        panels = figure.subplots(1, 1 + has_shares, sharey=True, squeeze=False)[0]
        left, right = panels[0], panels[-1]
        if has_shares:
            _by_share(left, results, measure)
        _by_size(right, results, measure)
        if has_shares:
            percent_axis(left, top=106, bottom=-4)
        figure.supylabel(f"{measure.label}, percent", fontsize=11)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9.5)
        return to_png(figure)


def _by_share(axes: Axes, results: Results, measure: Measure) -> None:
    points = [(system.value, results.spread(system.key, measure).mean) for system in results.group("share")]
    points.append((results.values.get("share"), results.spread(CALM, measure).mean))
    known = sorted((100 * share, value) for share, value in points if share is not None and value is not None)
    shares, values = [share for share, _ in known], [value for _, value in known]
    axes.plot(shares, values, color=colour_of(CALM), marker="o", linewidth=2)
    for share, value in known:
        axes.annotate(f"{value:.1f}", (share, value), (4, -14), textcoords="offset points", fontsize=9, bbox=BLANK)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("by keys in D_C")
    axes.set_xlabel("keys in D_C, percent of all")


def _by_size(axes: Axes, results: Results, measure: Measure) -> None:
    calm = results.system(CALM)
    series: list[tuple[str, list[System], str, str]] = [
        ("CALM, other connections", results.group("connections"), "s", colour_of(CALM)),
        ("CALM, other heads", results.group("heads"), "^", colour_of(CALM)),
    ]
    for group, method in METHOD_OF.items():
        _line(axes, [*results.group(group), *filter(None, [results.system(method)])], results, measure, method)
    # The methods have CALM's size, so their points share one x: each needs its own marker.
    series += [
        (system.label, [system], system_row(system.key).marker, colour_of(system.key))
        for system in results.group("methods")
    ]
    if calm is not None:
        axes.scatter(*_points([calm], results, measure), color=colour_of(CALM), label="CALM", s=46)
    for label, systems, marker, edge in series:
        sizes, values = _points(systems, results, measure)
        if sizes:
            # Hollow markers keep points of the same size and score visible.
            axes.scatter(sizes, values, marker=marker, facecolor="none", edgecolor=edge, label=label, s=46)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title("by trained parameters")
    axes.set_xlabel("trained parameters")


def _line(axes: Axes, systems: list[System], results: Results, measure: Measure, method: str) -> None:
    """Join the sizes of one method by a line; the method's own marker is drawn with the others."""
    if len(systems) > 1:
        known = sorted(zip(*_points(systems, results, measure), strict=True))
        row = system_row(method)
        sizes, values = [size for size, _ in known], [value for _, value in known]
        axes.plot(sizes, values, color=colour_of(method), marker=row.marker, markersize=4, linewidth=1, alpha=0.5)


def _points(systems: list[System], results: Results, measure: Measure) -> tuple[list[int], list[float]]:
    pairs = [(system.runs[0].trainable_parameters, results.spread(system.key, measure).mean) for system in systems]
    known = [(size, value) for size, value in pairs if size and value is not None]
    return [size for size, _ in known], [value for _, value in known]


def _thousands(value: float, _place: int | None = None) -> str:
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{name}"
    return f"{value:g}"
