"""How plots look: one colour a model, a light style, bars with their figures, PNG bytes without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import matplotlib.colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calmctl.reporting.kv_results import System

# Okabe and Ito's palette, which stays distinct under the common colour-vision deficiencies.
COLOURS = {
    "m_A": "#E69F00",
    "m_B": "#0072B2",
    "calm": "#009E73",
    "dc_subs": "#56B4E9",
    "dc_math": "#CC79A7",
    "random_aug": "#8C8C8C",
    "m_B_finetuned": "#56B4E9",
    "m_A2": "#B8860B",
    "one_tokenizer": "#56B4E9",
}
OTHER_METHODS = "#D55E00"
"""Colour of what is trained on D_C and is no composition."""
METHODS = ("lora", "prefix", "series", "parallel", "full")
MARKERS = {
    "m_A": "s",
    "m_B": "D",
    "calm": "o",
    "dc_subs": "v",
    "dc_math": "^",
    "random_aug": "X",
    "m_A2": "p",
    "one_tokenizer": "<",
}
LEVEL_COLOUR = "#444444"
ABSENT = "#666666"
BLANK = {
    "boxstyle": "square,pad=0.08",
    "facecolor": "white",
    "edgecolor": "none",
}  # keeps grid lines off figures
WIDTH = 7.2
STYLE: dict[str, Any] = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.bottom": False,
    "hatch.linewidth": 0.8,
    "figure.facecolor": "white",
}


SIDEWAYS = {"axes.grid.axis": "x", "xtick.bottom": True}


def style(changes: Mapping[str, Any] | None = None) -> AbstractContextManager[None]:
    """Return a context in which figures are drawn in this style, with `changes` to it."""
    settings: Any = {**STYLE, **(changes or {})}  # matplotlib's own type for it differs between versions
    return matplotlib.rc_context(settings)


def bar(axes: Axes, middle: float, width: float, value: float | None, system: System) -> None:
    """Draw an upright bar and its figure above it; what was not run gets the words instead of a bar."""
    if value is None:
        axes.annotate("not run", (middle, 2), rotation=90, ha="center", va="bottom", fontsize=8, color=ABSENT)
        return
    axes.bar(middle, value, width, color=COLOURS[system.key])
    axes.annotate(
        f"{value:.1f}",
        (middle, value),
        (0, 2.5),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        bbox=BLANK,
    )


def bar_sideways(
    axes: Axes, place: float, height: float, value: float | None, system: System, is_paper: bool = False
) -> None:
    """Draw a bar to the right and its figure after it; the paper's is lighter and hatched."""
    colour = COLOURS[system.key]
    if is_paper:
        axes.barh(place, value or 0, height, facecolor=lighter(colour), edgecolor=colour, hatch="////", linewidth=0.8)
    else:
        axes.barh(place, value or 0, height, color=colour)
    axes.annotate(
        "not run" if value is None else f"{value:.1f}",
        (value or 0, place),
        (5, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=9.5,
        color=ABSENT if value is None or is_paper else "#111111",
        bbox=BLANK,
    )


def colour_of(key: str) -> str:
    """Return the colour of a model; other methods share one, and other compositions are lighter than CALM."""
    if key in METHODS:
        return OTHER_METHODS
    return COLOURS[key] if key in COLOURS else lighter(COLOURS["calm"], 0.45)


def names_on_axis(axes: Axes, names: Sequence[str]) -> None:
    """Name sideways bars on the left and scale for percentages, with room for the figures after the bars."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", left=False)
    axes.set_xlim(0, 122)
    axes.set_xticks(range(0, 101, 25))


def lighter(colour: str, share: float = 0.72) -> str:
    """Return a colour that is so much nearer to white."""
    red, green, blue = (part + (1 - part) * share for part in matplotlib.colors.to_rgb(colour))
    return matplotlib.colors.to_hex((red, green, blue))


def percent_axis(axes: Axes, top: float = 108, bottom: float = 0) -> None:
    """Scale an axis for percentages, with room above 100 for the figures on the bars."""
    axes.set_ylim(bottom, top)
    axes.set_yticks(range(0, 101, 20))


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=170, metadata={"Software": None})
    return stream.getvalue()
