"""Live progress on stderr: one line per running run directory, read from its `progress.json`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from calmctl.errors import UserError
from calmctl.escaping import visible
from calmctl.processes.parent import is_first_process
from calmctl.units import human_bytes, human_seconds
from data_builders.values import read_json

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 30.0


@contextmanager
def watching(runs: Mapping[str, Path]) -> Iterator[None]:
    """Show the progress of runs (name -> folder) while the block runs; `runs` may change meanwhile.

    On a terminal it is a live table; elsewhere (a log file, CI) a line per run every 30 seconds. Only rank 0 shows it.
    """
    if not is_first_process():
        yield
        return
    stop = threading.Event()
    show = _show_live if sys.stderr.isatty() else _show_plain
    thread = threading.Thread(target=show, args=(runs, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show_live(runs: Mapping[str, Path], stop: threading.Event) -> None:
    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        while not stop.wait(REFRESH_SECONDS):
            live.update(_table(runs))


def _show_plain(runs: Mapping[str, Path], stop: threading.Event) -> None:
    due = time.monotonic() + PLAIN_SECONDS
    while not stop.wait(REFRESH_SECONDS):
        if time.monotonic() >= due:
            due += PLAIN_SECONDS
            for name, facts in _facts(runs):
                print(visible(f"{name}: {', '.join(text for text in facts if text)}"), file=sys.stderr, flush=True)


def _table(runs: Mapping[str, Path]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("run", "stage", "step", "pass", "loss", "tokens/s", "memory", "left"):
        table.add_column(column, justify="left" if column in ("run", "stage") else "right")
    for name, (stage, step, epoch, loss, speed, memory, left) in _facts(runs):
        plain = loss.removeprefix("loss "), speed.removesuffix(" tokens/s"), memory, left.removesuffix(" left")
        table.add_row(Text(visible(name)), Text(visible(stage)), step, epoch.removeprefix("pass "), *plain)
    return table


def _facts(runs: Mapping[str, Path]) -> list[tuple[str, tuple[str, str, str, str, str, str, str]]]:
    rows = []
    for name, folder in list(runs.items()):
        progress = _read(folder / "progress.json")
        if progress is None:
            rows.append((name, ("starting", "", "", "", "", "", "")))
            continue
        loss, speed, left = (progress.get(key) for key in ("loss", "tokens_per_second", "eta_seconds"))
        rows.append(
            (
                name,
                (
                    str(progress["stage"]),
                    f"{progress['step']}/{progress['total']}" if progress["total"] else "",
                    f"pass {progress['epoch']:.2f} of {progress['epochs']:.2f}" if progress.get("epochs") else "",
                    f"loss {loss:.4f}" if loss is not None else "",
                    f"{speed:,.0f} tokens/s" if speed is not None else "",
                    human_bytes(progress.get("peak_memory_bytes")) or "",
                    f"{human_seconds(left)} left" if left is not None else "",
                ),
            )
        )
    return rows


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except (OSError, ValueError, UserError):
        return None
