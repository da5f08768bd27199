"""Printing: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calmctl.errors import UserError
from calmctl.escaping import visible
from calmctl.processes.parent import is_first_process
from calmctl.units import human_seconds

if TYPE_CHECKING:
    from calmctl.reporting.comparison import Comparison
    from calmctl.runs.run import Run


def print_json(value: Any) -> None:
    """Print `value` as JSON on stdout."""
    print(visible(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def note(message: str) -> None:
    """Print a line of progress on stderr, on rank 0 only."""
    if is_first_process():
        print(visible(message), file=sys.stderr, flush=True)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None, numbers: Sequence[int] = ()
) -> None:
    """Print a table on stdout; piped output is not cut to the width of a terminal.

    Args:
        rows: cells are values, or `rich.text.Text` with its own style.
        numbers: indices of right-aligned columns.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    from rich.text import Text

    heading = None if title is None else Text(visible(title))
    table = Table(title=heading, title_justify="left", box=box.SIMPLE)
    for place, name in enumerate(columns):
        table.add_column(_cell(name), justify="right" if place in numbers else "left")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else _cell(value) for value in row))
    console.print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values in two aligned columns; None and empty values are left out."""
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(visible(f"{name:<{width}}  {value}"))


def print_entry(name: str, facts: str, text: str) -> None:
    """Print an entry of a list on stdout: a name, and below it facts and a text, wrapped to the terminal's width."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    console.print(Text(visible(name), style="bold"))
    for line in filter(None, (facts, text)):
        wrapped = textwrap.wrap(visible(line), console.width - 4, break_on_hyphens=False)
        console.print(Text(textwrap.indent("\n".join(wrapped), "    ")))


def print_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    """Print the plan of a command, as YAML or as JSON."""
    import yaml

    if as_json:
        print_json(plan)
        return

    class Plan(yaml.SafeDumper):
        """Writes lists of numbers and of pairs (connections) on one line."""

        def represent_list(self, values: list[Any]) -> yaml.Node:
            on_one_line = not any(isinstance(value, Mapping) for value in values)
            return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=on_one_line)

    Plan.add_representer(list, Plan.represent_list)
    text = yaml.dump(dict(plan), Dumper=Plan, sort_keys=False, allow_unicode=True, width=120)
    print(visible(text), end="")


def print_run(run: Run, as_json: bool) -> None:
    """Print the results of a finished training run, on rank 0 only."""
    if not is_first_process():
        return
    from calmctl.runs.record import read_run

    if as_json:
        print_json({"path": str(run.path), **run.facts})
        return
    log = run.read_jsonl()
    facts: dict[str, object] = {
        "run": run.path,
        "model": run.path / "model",
        "took": human_seconds(run.facts.get("seconds")),
        "trainable parameters": run.facts.get("trainable_parameters"),
    }
    if (difference := run.facts.get("difference_percent")) is not None:
        facts["parameters to match"] = f"{run.facts['matched_parameters']} ({difference:+.2f} percent)"
    if steps := [row for row in log if "loss" in row]:
        last = steps[-1]
        facts |= {"steps": last["step"], "last loss": last["loss"], "last exact match": last["exact_match"]}
    if metrics := read_run(run.path).metrics():
        facts["validation loss"] = f"{metrics['metrics']['validation_loss']:.4g} (step {metrics['step']})"
        facts |= _what_changed(metrics)
    print_facts(facts)


def _what_changed(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return validation losses before, during and after training beside the anchor's; empty if that is unknown."""
    losses = metrics["metrics"]
    if "anchor_loss" not in losses:
        return {}
    saved, alone = losses["validation_loss"], losses["anchor_loss"]
    known = {
        "anchor alone": alone,
        "at the start": losses["start_validation_loss"],
        f"best (step {metrics['best_step']})": losses.get("best_validation_loss"),
        "last": losses["last_validation_loss"],
    }
    return {
        "validation losses": ", ".join(f"{name} {loss:.4g}" for name, loss in known.items() if loss is not None),
        "compared with the anchor": f"{saved - alone:+.4g} on {metrics['n']} held-out examples"
        + (": they do not help it" if saved >= alone else ""),
    }


def print_metrics(result: Mapping[str, Any], source: str) -> None:
    """Print a task's metrics from its `metrics.json`."""
    rows = [(name, f"{value:.{3 if name == 'bits_per_byte' else 1}f}") for name, value in result["metrics"].items()]
    print_table(["metric", "value"], rows, title=f"{result['task']}: {source} (n = {result['n']})")
    if by_set := result["breakdown"].get("by_set"):
        names = dict.fromkeys(
            name for figures in by_set.values() for name, value in figures.items() if isinstance(value, int | float)
        )
        cells = [
            (figures["name"], *(None if (found := figures.get(name)) is None else round(found, 1) for name in names))
            for figures in by_set.values()
        ]
        print_table(["set", *names], cells)


def print_comparison(compared: Comparison) -> None:
    """Print runs side by side, and which is the best."""
    from calmctl.reporting.document.terminal import print_tables

    print_tables(compared.table())
    if verdict := compared.verdict():
        print(visible(verdict))


def write_csv(compared: Comparison, path: Path | None) -> None:
    """Write runs as CSV if a file is given for it; raises UserError if that is a folder."""
    if path is not None:
        if path.is_dir():
            raise UserError(f"--csv {path}: a folder; give a file, such as {path / 'runs.csv'}")
        compared.write_csv(path)
        note(f"wrote {path}")


def _cell(value: object) -> str:
    from rich.markup import escape

    return "-" if value is None else escape(visible(str(value)))
