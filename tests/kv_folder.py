"""A made-up folder like that of `calmctl reproduce kv`, for the tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calmctl.reporting.kv_results import METRICS, TRAINING_RUNS
from calmctl.reporting.paper import TABLE_1

# Made-up figures, each of them only once, so that finding one in a report says where it came from.
SYNTHETIC = {
    "m_A": (97.31, 1.17, 0.42, 0.23),
    "m_B": (0.13, 91.62, 0.31, 0.57),
    "calm": (95.74, 90.93, 86.68, 4.36),
    "random_aug": (0.91, 89.27, 0.08, 0.64),
    "dc_subs": (94.46, 83.83, 61.25, 2.71),
    "dc_math": (0.72, 88.14, 1.59, 7.48),
}
RUNS = {"m_A": "aug", "m_B": "anchor", "calm": "calm", "random_aug": "calm_random_aug"} | {
    key: f"calm_{key}" for key in ("dc_subs", "dc_math")
}
REQUESTS = {
    "substitute": ("kv_subs", "kv_math"),
    "solve_numbers": ("num_math",),
    "solve_keys": ("kv_math_direct",),
}


def accuracies(values: tuple[float, ...], change: float = 0.0) -> dict[str, float]:
    names = (metric.key for metric in METRICS)
    shifted = (round(min(max(value + change, 0), 100), 2) for value in values)
    return dict(zip(names, shifted, strict=True))


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def training_log(name: str) -> list[dict[str, Any]]:
    rows = []
    for index in range(1, 61):
        share = index / 60
        row = {"step": 25 * index, "loss": 2.9 * 0.02**share, "learning_rate": 0.01, "tokens_per_second": 4e4}
        row |= {"seconds": 2.0 * index, "exact_match": round(share**0.5 * 0.97, 4)}
        rows.append(row | ({"num_operands": min(6, 2 + index // 8)} if name == "anchor" else {}))
    return rows


def predictions(system: str) -> list[dict[str, Any]]:
    rows = []
    for number in range(12):
        for request, metrics in REQUESTS.items():
            right = (system == "calm" and number % 3 != 0) or (system == "m_B" and request == "solve_numbers")
            prompt = "substitute: abc + de - fgh =" if request == "substitute" else f"solve: {request} ="
            rows.append(
                {
                    "id": f"test-{number:03d}/{request}",
                    "prompt": prompt,
                    "completion": " 12 + 07 - 33 = -014" if right else f" {system} guess = {number}",
                    "reference": " 12 + 07 - 33 = -014",
                    "correct": right,
                    "metrics": dict.fromkeys(metrics, right),
                    "num_operands": 3 + number % 4,
                    "stratum": "held_out" if number < 10 else "held_in",
                }
            )
    return rows


def write_evaluation(folder: Path, system: str, values: tuple[float, ...]) -> None:
    slices = {str(count): {"n": 125, **accuracies(values, 3.0 * (4.5 - count))} for count in range(3, 7)}
    strata = {
        name: {"n": 500, **accuracies(values, change)}
        for name, change in (("held_out", 0.0), ("mixed", 0.7), ("held_in", 1.9))
    }
    metrics = {
        "task": "kv",
        "metrics": accuracies(values),
        "n": 500,
        "breakdown": {"by_num_operands": slices, "by_stratum": strata, "by_num_held_in": {}},
        "protocol": {"format": "kv-1", "decoding": "greedy", "shots": 0},
        "seconds": 12.5,
    }
    write(folder / "eval" / RUNS[system] / "metrics.json", metrics)
    write_lines(folder / "eval" / RUNS[system] / "predictions.jsonl", predictions(system))


def write_folder(folder: Path, seed: int = 7, change: float = 0.0) -> Path:
    """Write a folder like that of `calmctl reproduce kv`, with `change` points on every figure."""
    values = {key: tuple(accuracies(row, change).values()) for key, row in SYNTHETIC.items()}
    facts = {
        "kind": "reproduce",
        "status": "complete",
        "command": ["/somewhere/bin/calmctl", "reproduce", "kv", "--out", "my runs/kv"],
        "versions": {"python": "3.11.7", "torch": "2.13.0", "missing": None},
        "started": "2030-01-01T00:00:00+00:00",
    }
    table = {key: accuracies(row) for key, row in values.items()}
    table |= {"dc_mix": table["calm"], "paper": TABLE_1, "seed": seed, "preset": "synthetic"}  # type: ignore[dict-item]
    table |= {"deviations": ["4,321 keys instead of 25,000", "keys share values"], "git_commit": "0123abcd"}  # type: ignore[dict-item]
    table |= {"hardware": {"cpu": "Test CPU", "cpu_cores": 3, "memory_bytes": 5 * 2**30, "gpus": []}}  # type: ignore[dict-item]
    table |= {"seconds": {"data": 1.5, "anchor": 333.0, "total": 7530.0}}
    write(folder / "run.json", facts)
    (folder / "config.yaml").write_text(f"preset: tiny\nseed: {seed}\n")
    write(folder / "table1.json", table)
    for system, row in values.items():
        write_evaluation(folder, system, row)
    for name in TRAINING_RUNS:
        ended = {"trainable_parameters": 123_456, "seconds": 333.0, "peak_memory_bytes": 2**30}
        write(folder / name / "run.json", {"kind": "train", "status": "complete", "name": name, **ended})
        if name != "aug_random":  # it has no steps, so no log
            write_lines(folder / name / "train_log.jsonl", training_log(name))
    return folder
