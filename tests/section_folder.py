"""Made-up folders like those of `calmctl reproduce ntl` and `code`, for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from calmctl.reporting import report as section_report
from tests.kv_folder import training_log, write, write_lines

LANGUAGES = ("lij_Latn", "fur_Latn", "ban_Latn", "szl_Latn", "min_Arab")
NAMES = {"lij_Latn": "Ligurian", "fur_Latn": "Friulian", "ban_Latn": "Balinese", "szl_Latn": "Silesian"}
# key -> label, group, run, trained parameters, chrF1, bits per byte; made up, each figure only once
SYSTEMS: dict[str, tuple[str, str, str, int, float, float]] = {
    "m_A": ("m_A alone", "models", "aug", 3_210_000, 21.37, 2.1147),
    "m_B": ("m_B alone", "models", "anchor", 9_870_000, 18.64, 2.2281),
    "calm": ("CALM (composed)", "models", "calm", 289_472, 26.93, 1.9036),
    "random_aug": ("random m_A", "m_A", "random_aug", 289_472, 18.71, 2.2193),
    "lora": ("LoRA", "methods", "lora", 288_100, 24.52, 1.9514),
    "m_B_finetuned": ("m_B trained further", "skyline", "anchor_further", 9_870_000, 29.88, 1.8425),
}
STAGES = {"data": 61.0, "anchor": 900.5, "calm": 300.2, "total": 7530.0}
HARDWARE = {"cpu": "Test CPU", "cpu_cores": 3, "memory_bytes": 5 * 2**30, "gpus": []}
NTL_MANIFEST = {
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
}
CODE_MANIFEST = {
    "builder": "code",
    "files": {"aug_train.parquet": {"sha256": "ab", "rows": 4_368, "bytes": 94_846}},
    "counts": {"files": {"python": {"left_out": {"overlap_mbpp": 16, "generated": 178}}}},
    "overlap": {"humaneval": 0, "mbpp": 0, "codexglue": None},
    "statistics": {"aug_train.parquet": {"text_bytes": 350_156, "tokens_estimated": 4_180_000}},
}


def flores(key: str, change: float, languages: Sequence[str], shots: int = 5) -> dict[str, Any]:
    """Return metrics of FLORES; each language is a point apart from the next, the average is the system's figure."""
    chrf, bits = SYSTEMS[key][4] + change, SYSTEMS[key][5] - change / 100
    middle = (len(languages) - 1) / 2
    steps = {code: (place - middle) / max(middle, 1) for place, code in enumerate(languages)}
    # The composition gains most where m_B is worst.
    slope = {"m_B": 6.0, "calm": 3.5}.get(key, 5.0)
    by_language = {
        code: {"name": NAMES.get(code, code), "n": 100, "chrf1": chrf + slope * step} for code, step in steps.items()
    }
    return {
        "task": "flores",
        "task_version": 1,
        "metrics": {"chrf1": chrf, "bits_per_byte": round(bits, 4)},
        "n": 100 * len(languages),
        "breakdown": {
            "by_language": by_language,
            "bits_per_byte": {code: round(bits - slope * step / 20, 4) for code, step in steps.items()},
        },
        "protocol": {"format": "sentence-pairs", "shots": shots, "decoding": "greedy"},
        "data": {"source": "/somewhere/flores200", "limit": 100},
    }


def code_metrics(task: str, key: str, change: float) -> dict[str, Any]:
    """Return metrics of one of the code tasks."""
    score, bits = SYSTEMS[key][4] + change, SYSTEMS[key][5] - change / 100
    rows = {"python": {"n": 60, "chrf1": score + 1, "smoothed_bleu4": 9.5}}
    rows["ruby"] = {"n": 40, "chrf1": score - 1, "smoothed_bleu4": 7.5}
    metrics, breakdown = {
        "humaneval": ({"pass@1": 0.0, "bits_per_byte": bits - 0.5}, {"statuses": {"failed": 164}}),
        "codexglue": ({"chrf1": score, "smoothed_bleu4": 8.5}, {"by_language": rows}),
        "text": ({"bits_per_byte": bits}, {"bits_per_byte": {"python": bits}}),
    }[task]
    protocol = {"format": task, "shots": 0, "decoding": "greedy"}
    return {
        "task": task,
        "task_version": 1,
        "metrics": metrics,
        "n": 164,
        "breakdown": breakdown,
        "protocol": protocol,
        "data": {"source": f"data/{task}"},
    }


def predictions(task: str, key: str, count: int = 20) -> list[dict[str, Any]]:
    """Return predictions whose scores fall from record to record."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        group = LANGUAGES[number % len(LANGUAGES)] if task == "flores" else "HumanEval"
        row = {"id": f"{group}/{number}", "prompt": f"question {number} of {task}?", "reference": f"reference {number}"}
        answer = f"{key} says {number}"
        scores = {"sentence_chrf1": 90.0 - 4 * number} if task != "humaneval" else {"correct": number == 0}
        rows.append({**row, "completion": f" {answer}\n", "answer": answer, **scores})
    return rows


def write_section(
    folder: Path,
    section: str = "ntl",
    seeds: Sequence[int] = (0, 1, 2),
    seed: int = 0,
    change: float = 0.0,
    languages: Sequence[str] = LANGUAGES,
    keys: Sequence[str] = tuple(SYSTEMS),
) -> Path:
    """Write a folder like that of `calmctl reproduce SECTION`: `seeds` of what is trained on D_C, 0.4 points apart."""
    tasks = ["flores"] if section == "ntl" else ["humaneval", "codexglue", "text"]
    systems = []
    for key in keys:
        label, group, name, parameters, *_ = SYSTEMS[key]
        runs = []
        for number, run_seed in enumerate(seeds if key in ("calm", "lora", "random_aug") else (seed,)):
            run = name if number == 0 else f"{name}_seed{run_seed}"
            shift = change + 0.4 * (number - (len(seeds) - 1) / 2 if key in ("calm", "lora", "random_aug") else 0)
            metrics = {}
            for task in tasks:
                found = flores(key, shift, languages) if section == "ntl" else code_metrics(task, key, shift)
                write(folder / "eval" / task / run / "metrics.json", found)
                write_lines(folder / "eval" / task / run / "predictions.jsonl", predictions(task, key))
                metrics[task] = found["metrics"]
            cost = write_training(folder, run, parameters)
            runs.append(
                {
                    "seed": run_seed,
                    "run": run,
                    "is_trained": True,
                    "trainable_parameters": parameters,
                    "matched_parameters": None,
                    "difference_percent": None,
                    "cost": cost,
                    "evaluations": {task: f"eval/{task}/{run}" for task in tasks},
                    "metrics": metrics,
                }
            )
        systems.append({"key": key, "label": label, "group": group, "runs": runs})
    results = {"section": section, "preset": "tiny", "seed": seed, "tasks": tasks, "systems": systems}
    results |= {"deviations": ["small models instead of PaLM2"], "git_commit": "0123abcd", "hardware": HARDWARE}
    write(folder / "results.json", {**results, "seconds": STAGES})
    write(folder / "data" / "manifest.json", NTL_MANIFEST if section == "ntl" else CODE_MANIFEST)
    command = ["/somewhere/bin/calmctl", "reproduce", section, "--out", "runs/x"]
    write(folder / "run.json", {"kind": "reproduce", "status": "complete", "command": command})
    settings = "".join(f"{task}:\n  task: {task}\n" for task in tasks)
    (folder / "config.yaml").write_text(f"preset: tiny\nseed: {seed}\ntasks: [{', '.join(tasks)}]\n{settings}")
    return folder


def write_training(folder: Path, run: str, parameters: int) -> dict[str, Any]:
    """Write a training run with its log, and return what it cost."""
    cost = {"trainable_parameters": parameters, "flops_per_token": 2_000_000, "seconds_per_step": 0.05}
    cost |= {"tokens_per_second": 4e4, "model_bytes": 4 * parameters}
    facts = {"kind": "train", "status": "complete", "seconds": 333.0, "peak_memory_bytes": 2**30, "cost": cost}
    write(folder / run / "run.json", {**facts, "name": run, "trainable_parameters": parameters})
    rows = [{**row, "exact_match": 0.0, "num_operands": None} for row in training_log(run)]
    rows.append({"step": 1500, "validation_loss": 0.4, "seconds": 121.0})
    write_lines(folder / run / "train_log.jsonl", rows)
    (folder / run / "config.yaml").write_text("seed: 0\n")
    seen = {"run": run, "method": "train", "peak_memory_bytes": 2**30, "seconds": 333.0}
    return {**seen, **cost}


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change `results.json`."""
    results = json.loads((folder / "results.json").read_text())
    edit(results)
    write(folder / "results.json", results)


def leave_plots_out(patch: pytest.MonkeyPatch) -> None:
    """Let reports be made without drawing their plots, which takes most of the time."""
    for name in ("gains_plot", "systems_plot", "training_plot"):
        patch.setattr(section_report, name, lambda *about: b"\x89PNG not drawn")
