"""Plots of trainings: loss, validation loss, running exact match and curriculum level."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from calmctl.reporting.plots.style import LEVEL_COLOUR, WIDTH, colour_of, lighter, percent_axis, style, to_png
from calmctl.reporting.trainings import Training
from calmctl.reporting.values import number

BITS_FIELD = "validation_bits_per_byte"
LEAST_EXACT_MATCH = 0.01
"""Draw the exact match only if it reaches this fraction: on ordinary text it stays at zero."""


def training_plot(trainings: Sequence[Training], title: str) -> bytes:
    """Draw the loss of one training, or of several seeds of it.

    Validation loss, running exact match and curriculum level are those of the first one, if its log has them.
    """
    first, *others = trainings
    exact, has_level = first.series("exact_match"), bool(first.series("num_operands")[0])
    has_exact = max(exact[1], default=0.0) >= LEAST_EXACT_MATCH
    colour = colour_of(first.system)
    with style():
        num_panels = 1 + (has_exact or has_level)
        figure = Figure(figsize=(5.8, 2.9), layout="constrained")
        panels = list(figure.subplots(1, num_panels, squeeze=False).flat)
        for training in others:
            panels[0].plot(*training.series("loss"), color=lighter(colour, 0.5), linewidth=1.0)
        _loss_curve(panels[0], first, colour)
        if has_exact:
            panels[1].plot(exact[0], [100 * value for value in exact[1]], color=colour, linewidth=1.6)
            panels[1].set_title("exact match, percent")
            percent_axis(panels[1], top=104)
        if has_level:
            _level_curve(panels[1], first, is_alone=not has_exact)
        for panel in panels:
            panel.set_xlabel("step")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        names = f"run {first.name}" + (f" and {len(others)} other seeds (lighter)" if others else "")
        figure.suptitle(f"{title}, {names}", x=0.01, ha="left", fontsize=12 if not others else 11)
        return to_png(figure)


def validation_plot(trainings: Sequence[Training]) -> bytes:
    """Draw the bits per byte of held-out text by step, for models trained on D_C and (dashed) for m_B alone.

    Args:
        trainings: trainings with bits per byte in their log; seeds after a system's first are drawn lighter.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        drawn: set[str] = set()
        for training in trainings:
            steps, bits = training.series(BITS_FIELD)
            colour = colour_of(training.system)
            if training.system in drawn:
                axes.plot(steps, bits, color=lighter(colour, 0.5), linewidth=1.0)
                continue
            drawn.add(training.system)
            label = training.label.partition(", seed")[0]
            axes.plot(steps, bits, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=label)
        if (alone := _bits_alone(trainings)) is not None:
            axes.axhline(alone, color=LEVEL_COLOUR, linestyle="--", linewidth=1.0, label="m_B alone")
        axes.set_xlabel("step")
        axes.set_ylabel("bits per byte, held out")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        figure.legend(loc="outside upper center", ncols=4)
        return to_png(figure)


def _bits_alone(trainings: Sequence[Training]) -> float | None:
    """Return m_B's bits per byte, computed from the loss of m_B in a training log; None if no log has it."""
    for row in (row for training in trainings for row in training.log):
        loss, alone, bits = (number(row.get(name)) for name in ("validation_loss", "anchor_loss", BITS_FIELD))
        if loss and alone is not None and bits is not None:
            return bits * alone / loss
    return None


def _loss_curve(axes: Axes, training: Training, colour: str) -> None:
    steps, losses = training.series("loss")
    axes.plot(steps, losses, color=colour, linewidth=1.6, marker="." if len(steps) < 3 else "", label="training")
    axes.set_title("loss")
    checked, validation = training.series("validation_loss")
    if validation:
        line = "--" if len(checked) > 1 else ""
        axes.plot(checked, validation, color=LEVEL_COLOUR, linestyle=line, marker="o", markersize=3.5, label="held out")
        axes.legend()
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
