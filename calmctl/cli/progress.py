"""Live progress on stderr: a bar per running run directory, read from its `progress.json`, and the whole below it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from calmctl.errors import UserError
from calmctl.escaping import visible
from calmctl.processes.parent import is_first_process
from calmctl.units import human_bytes, human_seconds
from data_builders.values import read_json

REFRESH_SECONDS = 0.25
PLAIN_SECONDS = 30.0
BAR_COLUMNS = 12


class Whole(Protocol):
    """Several runs that make up one piece of work, such as the stages of an experiment."""

    def summary(self, seconds_left: Mapping[str, float | None]) -> str:
        """Return how far they are, such as `stage 5 of 14, 12 min left`.

        Args:
            seconds_left: of the running ones, by name, as far as they know.
        """


@dataclass(frozen=True)
class RunProgress:
    """What `progress.json` says of a run; everything but the name is unknown before it is written."""

    name: str
    stage: str = "starting"
    step: int = 0
    total: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    memory: float | None = None
    seconds_left: float | None = None
    epoch: float | None = None
    epochs: float | None = None

    @classmethod
    def read(cls, name: str, folder: Path) -> RunProgress:
        """Read the progress of a run."""
        found = _read(folder / "progress.json")
        if found is None:
            return cls(name)
        return cls(
            name,
            str(found["stage"]),
            found["step"],
            found["total"],
            found.get("loss"),
            found.get("validation_loss"),
            found.get("tokens_per_second"),
            found.get("peak_memory_bytes"),
            found.get("eta_seconds"),
            found.get("epoch"),
            found.get("epochs"),
        )

    @property
    def figures(self) -> str:
        """Return passes over the data, losses, speed and memory as text."""
        facts = [
            f"pass {self.epoch or 0:.2f} of {self.epochs:.2f}" if self.epochs else None,
            None if self.loss is None else f"loss {self.loss:.3f}",
            None if self.validation_loss is None else f"validation {self.validation_loss:.3f}",
            None if self.tokens_per_second is None else f"{self.tokens_per_second:,.0f} tokens/s",
            human_bytes(self.memory),
        ]
        return ", ".join(filter(None, facts))

    @property
    def steps(self) -> str:
        """Return step and total as text."""
        return f"{self.step:,}/{self.total:,}" if self.total else ""

    @property
    def left(self) -> str:
        """Return the time left as text."""
        return "" if self.seconds_left is None else f"{human_seconds(self.seconds_left)} left"

    @property
    def line(self) -> str:
        """Return everything on one line, for a log file."""
        shares = [f"{self.stage} {self.steps}".strip(), self.figures, self.left]
        return f"{self.name}: {', '.join(filter(None, shares))}"


@contextmanager
def watching(runs: Mapping[str, Path], whole: Whole | None = None) -> Iterator[None]:
    """Show the progress of runs (name -> folder) while the block runs; `runs` may change meanwhile.

    On a terminal it is redrawn in place; elsewhere (a log file, CI) a line per run every 30 seconds, unless nothing
    has changed. Only rank 0 shows it.

    Args:
        whole: what the runs are part of, shown below them.
    """
    if not is_first_process():
        yield
        return
    stop = threading.Event()
    show = _show_live if sys.stderr.isatty() else _show_plain
    thread = threading.Thread(target=show, args=(runs, whole, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show_live(runs: Mapping[str, Path], whole: Whole | None, stop: threading.Event) -> None:
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while not stop.wait(REFRESH_SECONDS):
            live.update(Display(*_look(runs, whole)), refresh=True)


def _show_plain(runs: Mapping[str, Path], whole: Whole | None, stop: threading.Event) -> None:
    due, shown = time.monotonic() + PLAIN_SECONDS, [""]
    while not stop.wait(REFRESH_SECONDS):
        if time.monotonic() < due:
            continue
        due += PLAIN_SECONDS
        found, summary = _look(runs, whole)
        lines = [visible(line) for line in (*(run.line for run in found), summary) if line]
        if lines != shown:
            print("\n".join(lines), file=sys.stderr, flush=True)
        shown = lines


def _look(runs: Mapping[str, Path], whole: Whole | None) -> tuple[list[RunProgress], str]:
    found = [RunProgress.read(name, folder) for name, folder in list(runs.items())]
    return found, whole.summary({run.name: run.seconds_left for run in found}) if whole is not None else ""


class Display:
    """The runs and the summary of the whole, laid out for the width of the terminal."""

    def __init__(self, runs: list[RunProgress], summary: str = "") -> None:
        self.runs, self.summary = runs, summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw one line per run where all fit, else three."""
        lines = [
            (_title(run), _bar(run), Text(run.steps), Text(run.figures, "dim"), Text(run.left)) for run in self.runs
        ]
        widths = [
            max(BAR_COLUMNS if isinstance(cell, ProgressBar) else cell.cell_len for cell in each)
            for each in zip(*lines, strict=True)
        ]
        rows: list[RenderableType] = []
        if sum(widths) + len(widths) <= options.max_width:
            grid = Table.grid(padding=(0, 1))
            for line in lines:
                grid.add_row(*line)
            rows.append(grid)
        else:
            for title, bar, steps, figures, left in lines:
                rows += [_cut(title), _beside(bar, Text(", ").join(each for each in (steps, left) if each))]
                rows += [Padding(figures, (0, 0, 0, 2))] if figures else []
        if self.summary:
            rows.append(_cut(Text(visible(self.summary))))
        yield Group(*rows)


def _title(run: RunProgress) -> Text:
    return Text(visible(run.name), "bold").append(visible(f" {run.stage}"), "not bold")


def _bar(run: RunProgress) -> ProgressBar:
    return ProgressBar(run.total or 1, run.step, width=BAR_COLUMNS)


def _beside(bar: ProgressBar, text: Text) -> Table:
    """Return a bar, indented, with a text beside it."""
    line = Table.grid(padding=(0, 1))
    line.add_row(" ", bar, _cut(text))
    return line


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except (OSError, ValueError, UserError):
        return None
