"""`calmctl ls`: list presets, runs, evaluation tasks and trained models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calmctl.cli import options, output
from calmctl.escaping import visible

app = typer.Typer(help="List presets, runs, tasks and trained models.")

Root = Annotated[Path, typer.Argument(metavar="[ROOT]", help="Folder to search, with all below it.")]


@app.command("presets")
def presets(
    group: Annotated[str, typer.Argument(metavar="[GROUP]", help="Only this group, say data/kv.")] = "",
    config_dir: options.ConfigDir = None,
    json: options.Json = False,
) -> None:
    """List the presets and the command that runs each."""
    from calmctl.config import list_presets
    from calmctl.errors import UserError

    found = list_presets(config_dir)
    chosen = [preset for preset in found if f"{preset.group}/".startswith(f"{group.strip('/')}/" if group else "")]
    if group and not chosen:
        groups = sorted({preset.group for preset in found})
        raise UserError(f"no presets in group {group!r}; groups: {', '.join(groups)}")
    if json:
        output.print_json(
            [
                {
                    "name": preset.name,
                    "group": preset.group,
                    "command": preset.command,
                    "description": preset.description,
                    "path": str(preset.path),
                }
                for preset in chosen
            ]
        )
        return
    output.print_table(["preset", "run with"], [(preset.name, preset.command) for preset in chosen])


@app.command("runs")
def runs(
    root: Root = Path("runs"),
    sort: options.Sort = "",
    csv: options.Csv = None,
    json: options.Json = False,
) -> None:
    """List the runs below a folder, with losses, figures of evaluations, and the settings that differ."""
    from calmctl.reporting.compared_runs import compare
    from calmctl.reporting.document.terminal import print_tables
    from calmctl.runs.run import list_runs

    found = list_runs(root)
    compared = compare(found, sort, is_list=True)
    if json:
        facts = {str(run.path): {key: run.facts.get(key) for key in ("seed", "finished")} for run in found}
        output.print_json([{"path": row["run"], **facts[row["run"]], **row} for row in compared.records()])
    else:
        print_tables(compared.overview())
        if compared.best() is not None:
            print(visible(compared.verdict()))
    output.write_csv(compared, csv)


@app.command("tasks")
def tasks(json: options.Json = False) -> None:
    """List the evaluation tasks and their options (`--shots 3`, or `options.NAME=VALUE` for any of them)."""
    from calmctl.settings import list_settings
    from evals import TASKS

    described: list[dict[str, Any]] = [
        {
            "name": name,
            "options": {each.name: each.type if each.is_required else each.default for each in list_settings(task)},
            "description": (task.__doc__ or "").strip().partition("\n")[0],
        }
        for name, task in sorted(TASKS.items())
    ]
    if json:
        output.print_json(described)
        return
    rows = []
    for row in described:
        shown = ", ".join(f"{name}={options.typed(value)}" for name, value in row["options"].items())
        rows.append((row["name"], shown, row["description"]))
    output.print_table(["task", "options", "what it measures"], rows)


@app.command("models")
def models(root: Root = Path("runs"), json: options.Json = False) -> None:
    """List the run directories that hold a trained model; `--model` takes any of them."""
    from calmctl.runs.run import list_runs

    found = [run for run in list_runs(root) if (run.path / "model").is_dir()]
    if json:
        output.print_json(
            [
                {
                    "path": str(run.path),
                    "kind": run.kind,
                    "status": run.status,
                    "trainable_parameters": run.facts.get("trainable_parameters"),
                    "total_parameters": run.facts.get("total_parameters"),
                }
                for run in found
            ]
        )
        return
    rows = [(run.path, run.kind, run.status, run.facts.get("total_parameters")) for run in found]
    output.print_table(["model", "made by", "status", "parameters"], rows)
