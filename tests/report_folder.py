"""Made-up folders like those of `calmctl reproduce`, and like one of the version before, for the tests of reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from calmctl.reporting import report
from calmctl.reporting.kv_tables import table1, table5
from calmctl.reporting.systems_table import shown_value, system_row
from data_builders.files import sha256_of
from tests.report_figures import (
    ABLATIONS,
    KV,
    LANGUAGES,
    NOT_REPEATED,
    REAL_TEXT,
    TASKS,
    VALUES,
    Made,
    metrics_of,
    predictions,
    training_log,
)

HARDWARE = {"cpu": "Test CPU", "cpu_cores": 3, "memory_bytes": 5 * 2**30, "gpus": []}
MANIFESTS = {
    "kv": {"builder": "kv", "files": {"aug_train.parquet": {"sha256": "ab", "rows": 217_869, "bytes": 9}}},
    "ntl": {
        "builder": "ntl",
        "files": {
            "aug_train.parquet": {"sha256": "ab", "rows": 217_869, "bytes": 22_016_900},
            "tokenizer/tokenizer.json": {"sha256": "cd", "rows": None, "bytes": 21_396},
        },
        "overlap": {
            "checked": True,
            "removed": {"aug": {"removed_rows": 31, "exact": {"fur_Latn": 2}, "near": {"lij_Latn": 29}}},
            "left": {"exact": 0, "near": 0},
        },
        "tokenizer": {"tokens_about": {"aug_train": 19_440_000}},
    },
    "code": {
        "builder": "code",
        "files": {"aug_train.parquet": {"sha256": "ab", "rows": 4_368, "bytes": 94_846}},
        "counts": {"files": {"python": {"left_out": {"overlap_mbpp": 16, "generated": 178}}}},
        "overlap": {"humaneval": 0, "mbpp": 0, "codexglue": None},
        "statistics": {"aug_train.parquet": {"text_bytes": 350_156, "tokens_estimated": 4_180_000}},
    },
}

EVERY_SYSTEM = (*KV, *ABLATIONS)
"""Of key-value arithmetic, ablations and all."""


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write_folder(
    folder: Path,
    experiment: str = "ntl",
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    shift: float = 0.0,
    languages: Sequence[str] = LANGUAGES,
    keys: Sequence[str] = (),
) -> Path:
    """Write a folder like that of `calmctl reproduce EXPERIMENT`.

    Args:
        seeds: of what is trained on D_C, whose figures are 0.4 points apart; one by default.
        shift: points on every figure.
        keys: systems; all but the ablations by default.
    """
    write(folder / "data" / "manifest.json", {**MANIFESTS[experiment], "seed": seed})
    made = {**KV, **ABLATIONS} if experiment == "kv" else REAL_TEXT
    chosen = keys or (KV if experiment == "kv" else REAL_TEXT)
    systems = [_system(folder, experiment, key, made[key], seeds or (seed,), seed, shift, languages) for key in chosen]
    results = {
        "section": experiment,
        "preset": "tiny",
        "seed": seed,
        "tasks": TASKS[experiment],
        "systems": systems,
        "values": VALUES if experiment == "kv" else {},
        "deviations": ["small models instead of PaLM2", "4,321 keys instead of 25,000"],
        "git_commit": "0123abcd",
        "hardware": HARDWARE,
        "seconds": {"data": 61.0, "anchor": 900.5, "calm": 333.0, "total": 7530.0},
    }
    write(folder / "results.json", results)
    if experiment == "kv" and "calm" in chosen:
        write(folder / "table1.json", table1(results, folder))
        if set(chosen) & ABLATIONS.keys():
            write(folder / "table5.json", table5(results, folder))
    command = ["/somewhere/bin/calmctl", "reproduce", experiment, "--out", "my runs/x"]
    facts = {"command": command, "versions": {"python": "3.11.7", "torch": "2.13.0", "missing": None}}
    write(folder / "run.json", {"kind": "reproduce", "status": "complete", **facts})
    settings = "".join(f"{task}:\n  task: {task}\n" for task in TASKS[experiment])
    (folder / "config.yaml").write_text(
        f"preset: tiny\nseed: {seed}\ntasks: [{', '.join(TASKS[experiment])}]\n{settings}"
    )
    return folder


def _system(
    folder: Path,
    experiment: str,
    key: str,
    made: Made,
    seeds: Sequence[int],
    seed: int,
    shift: float,
    languages: Sequence[str],
) -> dict[str, Any]:
    """Write the runs of a system and return what `results.json` says of it."""
    row, runs = system_row(key), []
    is_repeated = key not in NOT_REPEATED
    for number, run_seed in enumerate(seeds if is_repeated else (seed,)):
        run = made.run if number == 0 else f"{made.run}_seed{run_seed}"
        points = shift + (0.4 * (number - (len(seeds) - 1) / 2) if is_repeated else 0)
        found = {task: metrics_of(experiment, task, key, made, points, languages) for task in TASKS[experiment]}
        for task, metrics in found.items():
            if experiment == "kv":  # a share of the keys has data of its own
                data = folder / (f"data_{key}" if row.group == "share" else "data") / "manifest.json"
                if not data.exists():
                    write(data, {**MANIFESTS["kv"], "seed": seed, "share": key})
                metrics["data"]["sha256"] = sha256_of(data)
            write(folder / "eval" / task / run / "metrics.json", metrics)
            write_lines(folder / "eval" / task / run / "predictions.jsonl", predictions(experiment, task, key))
        is_matched = row.group == "methods"
        runs.append(
            {
                "seed": run_seed,
                "run": run,
                "is_trained": True,
                "trainable_parameters": made.parameters,
                "matched_parameters": 123_456 if is_matched else None,
                "difference_percent": 0.001 if is_matched else None,
                "cost": write_training(folder, run, run_seed, made.parameters),
                "evaluations": {task: f"eval/{task}/{run}" for task in found},
                "metrics": {task: metrics["metrics"] for task, metrics in found.items()},
            }
        )
    label = row.label if made.value is None else row.label.format(shown_value(row.group, made.value))
    return {"key": key, "label": label, "group": row.group, "value": made.value, "runs": runs}


def write_training(folder: Path, run: str, seed: int, parameters: int) -> dict[str, Any]:
    """Write a training run with its log, and return what it cost."""
    cost = {"trainable_parameters": parameters, "flops_per_token": 2_000_000, "seconds_per_step": 0.05}
    cost |= {"tokens_per_second": 4e4, "model_bytes": 4 * parameters}
    facts = {"kind": "train", "status": "complete", "seed": seed, "seconds": 333.0, "cost": cost}
    facts["peak_memory_bytes"] = 2**30
    write(folder / run / "run.json", {**facts, "name": run, "trainable_parameters": parameters})
    write_lines(folder / run / "train_log.jsonl", training_log(run))
    (folder / run / "config.yaml").write_text("seed: 0\n")
    return {"run": run, "method": "train", "peak_memory_bytes": 2**30, "seconds": 333.0, **cost}


def write_before(folder: Path, seed: int = 0) -> Path:
    """Write a key-value folder of the version before: two tables, ablations in a folder of theirs, no results.json."""
    write_folder(folder, "kv", seed=seed, keys=EVERY_SYSTEM)
    results, table = read(folder / "results.json"), read(folder / "table5.json")
    for system in results["systems"]:
        key, run = system["key"], system["runs"][0]["run"]
        if key in ABLATIONS:
            moved, place = f"ablations/{run}", f"ablations/eval/{run}"
        else:
            moved = run if key in ("m_A", "m_B", "calm") else f"calm_{key}"
            place = f"eval/{moved}"
        for old, new in ((run, moved), (f"eval/kv/{run}", place)):
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            (folder / old).rename(folder / new)
        table["rows"][key] |= {"run": moved, "evaluation": place}
        table["rows"][key]["cost"] |= {"run": moved}
    write(folder / "ablations" / "table5.json", table)
    for name in ("results.json", "table5.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "eval" / "kv")
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change `results.json`."""
    results = read(folder / "results.json")
    edit(results)
    write(folder / "results.json", results)


def of(results: dict[str, Any], key: str) -> dict[str, Any]:
    """Return what `results.json` says of a system."""
    return next(system for system in results["systems"] if system["key"] == key)


def report_of(folder: Path) -> str:
    """Write the report of a folder and return it as Markdown."""
    report.write_report(folder)
    return markdown(folder)


def markdown(folder: Path) -> str:
    """Return the report in a folder as Markdown."""
    return (folder / "report.md").read_text(encoding="utf-8")


def row(text: str, start: str) -> str:
    """Return the first row of a table in Markdown that begins with a text."""
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


class Page(HTMLParser):
    """The text of the report in a folder as HTML, its tags, and its addresses."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.html = (folder / "report.html").read_text(encoding="utf-8")
        self.feed(self.html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        self.links += [found["href"] or ""] if tag == "a" else []
        self.images += [found["src"] or ""] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def leave_plots_out(patch: pytest.MonkeyPatch) -> None:
    """Let reports be made without drawing their plots, which takes most of the time."""
    for name in [name for name in vars(report) if name.endswith("_plot")]:
        patch.setattr(report, name, lambda *about: b"\x89PNG not drawn")
