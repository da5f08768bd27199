"""The ablations of the paper's table 5 on the key-value task, and what the paper leaves open, one change at a time.

Everything stands on a finished `calmctl reproduce kv` folder: its data, m_A, m_B and headline composition are used as
they are. What is trained and scored for the ablations lies in `ablations/` below that folder; each training and
evaluation is a run of its own, so that a later start can add variants without repeating any.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calmctl.environment import git_commit, hardware
from calmctl.evaluation.evaluating import METRICS_FILE
from calmctl.experiments.kv import BASES, COMPOSITIONS, kv_stages
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.kv_variants import Variant, calm_values, check_ablations, kv_variants
from calmctl.experiments.preflight import check_stages
from calmctl.experiments.stages import Stage, missing_stages, run_stages
from calmctl.reporting.cost_table import cost_rows, is_training
from calmctl.reporting.kv_ablations import ABLATIONS_FOLDER, TABLE_5_FILE
from calmctl.reporting.kv_report import write_kv_report
from calmctl.runs.identity import existing_run
from calmctl.runs.run import Run, read_run
from data_builders.values import read_json

REUSED = {
    "m_A": ("m_A alone", "models"),
    "m_B": ("m_B alone", "models"),
    "calm": ("CALM", "models"),
    "random_aug": ("random m_A", "m_A"),
    "dc_subs": ("D_C subs", "D_C"),
    "dc_math": ("D_C math", "D_C"),
}
"""Rows of table 5 that the reproduction itself has measured: key -> label and group."""


def reproduction_stages(
    config: ReproduceKVConfig, out: Path, ablations: bool = False, nproc_per_node: str | None = None
) -> list[Stage]:
    """Return all stages of a reproduction in `out`, those of its ablations last."""
    stages = kv_stages(config, out) + (_ablation_stages(kv_variants(config, out)) if ablations else [])
    return [stage.launched(nproc_per_node) for stage in stages]


def _ablation_stages(variants: Iterable[Variant]) -> list[Stage]:
    """Return the stages of variants, evaluations last: what others wait for goes first."""
    stages = [stage for variant in variants for stage in variant.stages]
    return sorted(stages, key=lambda stage: stage.command[0] == "eval")


def ablate_kv(
    config: ReproduceKVConfig,
    out: Path,
    command: Sequence[str] = (),
    running: dict[str, Path] | None = None,
    nproc_per_node: str | None = None,
) -> Run:
    """Train and score every variant of a finished reproduction in `out` that is not done yet; write table and report.

    Raises:
        UserError: a variant cannot be made, the folder holds ablations of another headline composition, or a stage
            refused its input.
    """
    folder = out / ABLATIONS_FOLDER
    variants = list(kv_variants(config, out))
    stages = preflight_ablations(config, out, nproc_per_node)
    # The reproduction may have been scored anew, and other variants may have been asked for, without a stage here.
    is_current = not missing_stages(stages) and _holds(folder / TABLE_5_FILE, table5_rows(out, variants))
    with Run.start(
        folder, kind="reproduce", config=config, command=command, seed=config.seed, is_current=is_current
    ) as run:
        seconds = run_stages(folder, stages, config, nproc_per_node, running)
        if not run.is_complete:
            run.write_json(TABLE_5_FILE, table5(config, out, variants, {**seconds, "total": round(run.seconds, 1)}))
        write_kv_report(out)
        if not run.is_complete:
            run.finish()
        return run


def preflight_ablations(config: ReproduceKVConfig, out: Path, nproc_per_node: str | None) -> list[Stage]:
    """Return the stages of the ablations alone, once they are checked: before the experiment begins, too.

    Raises:
        UserError: see `ablate_kv`.
    """
    check_ablations(config)
    existing_run(out / ABLATIONS_FOLDER, "reproduce", config, {})  # another run is refused before its stages
    stages = _ablation_stages(list(kv_variants(config, out)))
    check_stages(stages, nproc_per_node)
    return stages


def _holds(path: Path, rows: Mapping[str, Any]) -> bool:
    return path.is_file() and read_json(path).get("rows") == rows


def table5(
    config: ReproduceKVConfig, out: Path, variants: Sequence[Variant], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return `table5.json`: accuracies in percent on held-out keys, sizes, and where each row's runs are."""
    return {
        "rows": table5_rows(out, variants),
        "calm_values": calm_values(config),
        "seed": config.seed,
        "preset": config.preset,
        "git_commit": git_commit(),
        "hardware": hardware(),
        "seconds": seconds,
    }


def table5_rows(out: Path, variants: Sequence[Variant]) -> dict[str, Any]:
    """Return the rows of table 5: what the reproduction has measured, then its variants."""
    rows: dict[str, Any] = {}
    runs = {key: name for name, (_, _, key) in COMPOSITIONS.items()} | {key: name for name, key in BASES.items()}
    for key, (label, group) in REUSED.items():
        if (out / "eval" / runs[key] / METRICS_FILE).is_file():
            rows[key] = {"label": label, "group": group, "value": None, **_measured(out, "", runs[key])}
    for variant in variants:
        about = {"label": variant.label, "group": variant.group, "value": variant.value}
        rows[variant.name] = about | _measured(out, f"{ABLATIONS_FOLDER}/", variant.name)
    return rows


def _measured(out: Path, prefix: str, name: str) -> dict[str, Any]:
    """Return the figures of one model and the folders, relative to `out`, that they were read from."""
    run, evaluation = f"{prefix}{name}", f"{prefix}eval/{name}"
    facts = read_run(out / run).facts
    kept = ("trainable_parameters", "matched_parameters", "difference_percent", "seconds", "peak_memory_bytes")
    return {
        "metrics": read_json(out / evaluation / METRICS_FILE)["metrics"],
        **{fact: facts.get(fact) for fact in kept},
        "cost": cost_rows([out / run])[0] | {"run": run} if is_training(out / run) else None,
        "run": run,
        "evaluation": evaluation,
    }
