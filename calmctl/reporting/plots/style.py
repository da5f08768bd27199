"""The style of plots: colours, fonts, axes, and rendering to PNG bytes without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import matplotlib.colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calmctl.reporting.systems_table import system_row

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
    """Return a context manager that applies the style, with `changes` to it."""
    settings: Any = {**STYLE, **(changes or {})}  # matplotlib's own type for it differs between versions
    return matplotlib.rc_context(settings)


def colour_of(key: str) -> str:
    """Return the colour of a system."""
    return system_row(key).colour


def lighter(colour: str, share: float = 0.72) -> str:
    """Return a colour moved towards white by `share` (0 to 1)."""
    red, green, blue = (part + (1 - part) * share for part in matplotlib.colors.to_rgb(colour))
    return matplotlib.colors.to_hex((red, green, blue))


def percent_axis(axes: Axes, top: float = 108, bottom: float = 0) -> None:
    """Scale the y axis for percentages, with room above 100 for the figures on the bars."""
    axes.set_ylim(bottom, top)
    axes.set_yticks(range(0, 101, 20))


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=170, metadata={"Software": None})
    return stream.getvalue()
