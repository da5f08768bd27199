"""What a `calmctl reproduce kv` folder holds, read once and checked, for the tables, plots and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.checked import mapping, number
from calmctl.reporting.trainings import Training, read_training
from calmctl.runs.record import RUN_FILE, RunInfo, read_run
from data_builders.values import read_json

TABLE_FILE = "table1.json"
Accuracies = Mapping[str, float | None]
"""Metric -> accuracy in percent; None: not measured."""


@dataclass(frozen=True)
class System:
    """A model of the experiment: its key in `table1.json`, its name, its run (and evaluation) folder."""

    key: str
    label: str
    run: str
    is_control: bool = False

    @property
    def short(self) -> str:
        """Return the label without the explanation in parentheses."""
        return self.label.partition(" (")[0]


@dataclass(frozen=True)
class Metric:
    """An accuracy of the experiment and the protocol it belongs to."""

    key: str
    label: str
    protocol: str


AUG = System("m_A", "m_A (aug)", "aug")
ANCHOR = System("m_B", "m_B (anchor)", "anchor")
CALM = System("calm", "CALM (composed)", "calm")
MODELS = (AUG, ANCHOR, CALM)
CONTROLS = (
    System("dc_subs", "D_C subs (no KV-MATH answer shown)", "calm_dc_subs", is_control=True),
    System("dc_math", "D_C math (KV-MATH at once)", "calm_dc_math", is_control=True),
    System("random_aug", "random m_A (untrained weights)", "calm_random_aug", is_control=True),
)
AUG2 = System("m_A2", "m_A 2 (second aug)", "aug2")
ONE_TOKENIZER = System("one_tokenizer", "one tokenizer (m_A reads as m_B does)", "calm_one_tokenizer", is_control=True)
# The last two are of experiments whose models have tokenizers of their own.
SYSTEMS = (AUG, ANCHOR, CALM, *CONTROLS, AUG2, ONE_TOKENIZER)
KV_SUBS = Metric("kv_subs", "KV-SUBS", "stepwise")
NUM_MATH = Metric("num_math", "NUM-MATH", "stepwise")
KV_MATH = Metric("kv_math", "KV-MATH (stepwise)", "stepwise")
KV_MATH_DIRECT = Metric("kv_math_direct", "KV-MATH (direct)", "direct")
METRICS = (KV_SUBS, NUM_MATH, KV_MATH, KV_MATH_DIRECT)
STRATA = {"held_in": "all held in", "mixed": "mixed", "held_out": "all held out"}
TRAINING_RUNS = {
    "anchor": ("m_B (anchor)", "m_B"),
    "aug": ("m_A (aug)", "m_A"),
    "aug_random": ("random m_A (untrained)", "random_aug"),
    "calm": ("CALM (D_C mix)", "calm"),
    "calm_dc_subs": ("CALM, D_C subs", "dc_subs"),
    "calm_dc_math": ("CALM, D_C math", "dc_math"),
    "calm_random_aug": ("CALM, random m_A", "random_aug"),
}
"""Run directory of a training -> its name for readers and the key of the system whose colour it has."""
OTHER_TRAINING_RUNS = {
    "aug2": ("m_A 2 (second aug)", "m_A2"),
    "aug_one_tokenizer": ("m_A with m_B's tokenizer", "one_tokenizer"),
    "calm_one_tokenizer": ("CALM, one tokenizer", "one_tokenizer"),
}
"""The same for trainings that only some experiments have."""


@dataclass(frozen=True)
class Slice:
    """The accuracies over a part of the test set of `num_examples` expressions."""

    num_examples: int | None
    accuracies: Accuracies


@dataclass(frozen=True)
class Evaluation:
    """One `eval/<name>/metrics.json`; `folder` is relative to the reproduce folder."""

    folder: str
    overall: Slice
    by_num_operands: Mapping[int, Slice]
    by_stratum: Mapping[str, Slice]
    by_augs: Mapping[str, Slice]
    protocol: Mapping[str, Any]
    seconds: float | None


@dataclass(frozen=True)
class KVResults:
    """All that a `calmctl reproduce kv` folder says, keyed by the systems' keys of `table1.json`."""

    folder: Path
    figures: Mapping[str, Accuracies]
    evaluations: Mapping[str, Evaluation]
    trainings: tuple[Training, ...]
    deviations: tuple[str, ...]
    seconds: Mapping[str, float]
    seed: int | None
    preset: str
    git_commit: str | None
    hardware: Mapping[str, Any]
    run: RunInfo | None

    @property
    def models(self) -> tuple[System, ...]:
        """Return the models of Table 1."""
        return MODELS + self._measured(AUG2)

    @property
    def controls(self) -> tuple[System, ...]:
        """Return the controls."""
        return CONTROLS + self._measured(ONE_TOKENIZER)

    @property
    def systems(self) -> tuple[System, ...]:
        """Return the models and the controls."""
        return self.models + self.controls

    def _measured(self, system: System) -> tuple[System, ...]:
        return (system,) if system.key in self.figures else ()

    def figure(self, system: System, metric: Metric) -> float | None:
        """Return an accuracy of Table 1 in percent, or None if it was not measured."""
        return self.figures.get(system.key, {}).get(metric.key)

    def disagreements(self) -> list[str]:
        """Name every figure of `table1.json` that its evaluation does not confirm."""
        return list(self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        for system in SYSTEMS:
            if system.key not in self.evaluations:
                continue
            evaluation = self.evaluations[system.key]
            for metric in METRICS:
                table, file = self.figure(system, metric), evaluation.overall.accuracies.get(metric.key)
                if (table is None) != (file is None) or abs((table or 0) - (file or 0)) > 0.05:
                    yield (
                        f"{system.short}, {metric.label}: {TABLE_FILE} says {_shown(table)}, "
                        f"{evaluation.folder}/metrics.json says {_shown(file)}"
                    )


def load_kv_results(folder: Path) -> KVResults:
    """Read a `calmctl reproduce kv` folder; evaluations and trainings that are missing are left out.

    Raises:
        UserError: `folder` is no such folder, or one of its files is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one written by `calmctl reproduce kv`")
    run = read_run(folder) if (folder / RUN_FILE).exists() else None
    if not (folder / TABLE_FILE).exists():
        found = f"it is a run of kind {run.kind!r}, status {run.status!r}" if run else f"it has no {RUN_FILE}"
        raise UserError(
            f"{folder} has no {TABLE_FILE} ({found}); expected a folder of `calmctl reproduce kv` that has"
            " come as far as its table"
        )
    table = mapping(read_json(folder / TABLE_FILE), folder / TABLE_FILE)
    figures = {
        system.key: _accuracies(table[system.key], folder / TABLE_FILE)
        for system in SYSTEMS
        if table.get(system.key) is not None
    }
    if not figures:
        raise UserError(f"{folder / TABLE_FILE} names none of {', '.join(s.key for s in SYSTEMS)}")
    facts = run.facts if run else {}
    return KVResults(
        folder=folder,
        figures=figures,
        evaluations=_evaluations(folder),
        trainings=_trainings(folder),
        deviations=tuple(str(text) for text in table.get("deviations") or ()),
        seconds={
            str(stage): float(value)
            for stage, value in (table.get("seconds") or {}).items()
            if number(value) is not None
        },
        seed=table.get("seed", facts.get("seed")),
        preset=str(table.get("preset") or "not recorded"),
        git_commit=table.get("git_commit") or facts.get("git_commit"),
        hardware=table.get("hardware") or facts.get("hardware") or {},
        run=run,
    )


def _evaluations(folder: Path) -> dict[str, Evaluation]:
    found = {}
    for system in SYSTEMS:
        relative = f"eval/{system.run}"
        path = folder / relative / "metrics.json"
        if not path.exists():
            continue
        content = mapping(read_json(path), path)
        breakdown = mapping(content.get("breakdown") or {}, path)
        operands = _slices(breakdown.get("by_num_operands"), path)
        found[system.key] = Evaluation(
            folder=relative,
            overall=_slice({"n": content.get("n"), **mapping(content.get("metrics"), path)}, path),
            by_num_operands={int(count): operands[count] for count in sorted(filter(str.isdecimal, operands), key=int)},
            by_stratum=_slices(breakdown.get("by_stratum"), path),
            by_augs=_slices(breakdown.get("by_augs"), path),
            protocol=content.get("protocol") or {},
            seconds=number(content.get("seconds")),
        )
    return found


def _trainings(folder: Path) -> tuple[Training, ...]:
    return tuple(
        read_training(folder, name, label, system)
        if (folder / name / RUN_FILE).exists()
        else Training(name, label, system, {}, ())
        for name, (label, system) in (TRAINING_RUNS | OTHER_TRAINING_RUNS).items()
        if name in TRAINING_RUNS or (folder / name / RUN_FILE).exists()
    )


def _slices(value: Any, path: Path) -> dict[str, Slice]:
    return {str(name): _slice(part, path) for name, part in mapping(value or {}, path).items()}


def _slice(value: Any, path: Path) -> Slice:
    count = number(mapping(value, path).get("n"))
    return Slice(None if count is None else int(count), _accuracies(value, path))


def _accuracies(value: Any, path: Path) -> dict[str, float | None]:
    known = mapping(value, path)
    return {metric.key: number(known.get(metric.key)) for metric in METRICS}


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.1f}"
