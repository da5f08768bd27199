"""`table1.json` and `table5.json` of the key-value experiment: exports, also read from folders of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.costs import cost_rows, is_training
from calmctl.reporting.paper import TABLE_1
from calmctl.reporting.systems_table import SYSTEMS, is_known, system_row
from calmctl.reporting.values import mapping, numbers
from calmctl.runs.record import METRICS_FILE, RUN_FILE, read_run
from data_builders.values import read_json

TABLE_1_FILE, TABLE_5_FILE = "table1.json", "table5.json"
_KEPT = ("seed", "preset", "deviations", "git_commit", "hardware", "seconds")
_ORDER = ("m_A", "m_A2", "m_B", "calm", "random_aug", "dc_subs", "dc_math", "one_tokenizer")
# Run folders of earlier versions: of table 1, and of table 5.
_RUNS = {"m_A": "aug", "m_A2": "aug2", "m_B": "anchor", "calm": "calm"}
_ABLATIONS = "ablations"
# Group of systems -> its name in table 5, if it differs.
_GROUPS = {"methods": "baselines", "skyline": "baselines"}


def table1(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return `table1.json`: accuracies in percent on held-out keys (mean over seeds), and the paper's."""
    runs = {system["key"]: system["runs"] for system in results["systems"]}
    rows = {key: _mean([run["metrics"]["kv"] for run in runs[key]]) for key in _ORDER if key in runs}
    paths = [folder / run["evaluations"]["kv"] / METRICS_FILE for run in runs["calm"]]
    found = [read_json(path)["breakdown"].get("by_augs") or {} for path in paths]
    by_augs = {augs: _mean([each[augs] for each in found]) for augs in found[0]}
    return {
        **rows,
        "dc_mix": rows["calm"],
        **({"calm_by_augs": by_augs} if by_augs else {}),
        "paper": TABLE_1,
        **{name: results[name] for name in _KEPT},
    }


def _mean(rows: list[Mapping[str, float]]) -> dict[str, float]:
    return dict(rows[0]) if len(rows) == 1 else {name: fmean(row[name] for row in rows) for name in rows[0]}


def table5(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return `table5.json`: accuracies in percent on held-out keys (mean over seeds), sizes, and run folders."""
    rows = {system["key"]: _row(system) for system in results["systems"]}
    kept = {name: results[name] for name in _KEPT if name != "deviations"}
    return {"rows": rows, "calm_values": results["values"], **kept}


def _row(system: Mapping[str, Any]) -> dict[str, Any]:
    run = system["runs"][0]
    cost = run["cost"] or {}
    sizes = ("trainable_parameters", "matched_parameters", "difference_percent")
    return {
        "label": system["label"],
        "group": _GROUPS.get(system["group"], system["group"]),
        "value": system["value"],
        "metrics": _mean([each["metrics"]["kv"] for each in system["runs"]]),
        **{name: run[name] for name in sizes},
        **{name: cost.get(name) for name in ("seconds", "peak_memory_bytes")},
        "cost": run["cost"],
        "run": run["run"],
        "evaluation": run["evaluations"]["kv"],
    }


def is_before_results(folder: Path) -> bool:
    """Return whether a folder has the `table1.json` that earlier versions wrote instead of `results.json`."""
    return (folder / TABLE_1_FILE).exists()


def results_before(folder: Path) -> dict[str, Any]:
    """Return the content of `results.json` for a folder of an earlier version, which has none.

    Raises:
        UserError: one of its tables is damaged.
    """
    path = folder / TABLE_1_FILE
    table = mapping(read_json(path), path)
    rows = {key: table[key] for key in _ORDER if table.get(key) is not None}
    if not rows:
        raise UserError(f"{path} names none of {', '.join(_ORDER)}")
    values, ablations = _table5_before(folder)
    systems = {key: _before(folder, key, mapping(row, path), ablations.get(key)) for key, row in rows.items()}
    systems |= {key: _before(folder, key, row["metrics"], row) for key, row in ablations.items() if key not in systems}
    facts = read_run(folder).facts if (folder / RUN_FILE).exists() else {}
    kept = {name: facts.get(name) if table.get(name) is None else table[name] for name in _KEPT}
    return {"section": "kv", "tasks": ["kv"], "systems": list(systems.values()), "values": values, **kept}


def _table5_before(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """Return the headline's values and the rows of table 5; in published results the file is beside table 1."""
    for path in (folder / _ABLATIONS / TABLE_5_FILE, folder / TABLE_5_FILE):
        if path.exists():
            content = mapping(read_json(path), path)
            rows, values = mapping(content.get("rows"), path), mapping(content.get("calm_values"), path)
            if not all(is_known(key) and isinstance(row, Mapping) and "metrics" in row for key, row in rows.items()):
                raise UserError(f"{path}: damaged (a row is unknown or has no metrics); restore it")
            return values, rows
    return {}, {}


def _before(folder: Path, key: str, metrics: Mapping[str, Any], row: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return one system of a folder of an earlier version; `row` is its row of table 5, if any."""
    known = row or {}
    run = known.get("run") or _RUNS.get(key, f"calm_{key}")
    evaluation = known.get("evaluation") or f"eval/{run}"
    is_trained = (folder / run / RUN_FILE).exists()
    facts = read_run(folder / run).facts if is_trained else known
    return {
        "key": key,
        "label": known.get("label") or SYSTEMS[key].label,
        "group": system_row(key).group,
        "value": known.get("value"),
        "runs": [
            {
                "seed": facts.get("seed"),
                "run": run,
                "is_trained": is_trained or not (folder / RUN_FILE).exists(),  # published results have no runs
                "trainable_parameters": facts.get("trainable_parameters"),
                "cost": cost_rows([folder / run])[0] | {"run": run} if is_training(folder / run) else None,
                "evaluations": {"kv": evaluation} if (folder / evaluation / METRICS_FILE).exists() else {},
                "metrics": {"kv": numbers(metrics)},
            }
        ],
    }
