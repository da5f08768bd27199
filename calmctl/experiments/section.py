"""A section of the paper on real text, from nothing to table and report.

Data -> m_A beside m_B -> their composition and what it is compared with -> every task on every model -> `results.json`
and report. Each step is a `calmctl` command in a process of its own (see stages.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmctl.environment import git_commit, hardware
from calmctl.evaluation.evaluating import METRICS_FILE, EvalConfig, check_data
from calmctl.evaluation.tasks import find_data, has_option
from calmctl.experiments.preflight import check_stages
from calmctl.experiments.section_config import WITH_EXAMPLES, SectionConfig
from calmctl.experiments.stages import Stage, missing_stages, run_stages, stage_in
from calmctl.experiments.systems import Files, System, Systems, Trained, asked_of
from calmctl.inference.mixture import check_mixable
from calmctl.modeling.bases.sources import base_config, load_tokenizer, without_weights
from calmctl.reporting.cost_table import cost_rows, is_training
from calmctl.reporting.section_report import write_section_report
from calmctl.reporting.section_results import RESULTS_FILE
from calmctl.runs.identity import existing_run, has_settings
from calmctl.runs.run import Run, read_run
from data_builders.values import read_json


@dataclass(frozen=True)
class Section:
    """What tells one section from another.

    Attributes:
        name: of its data builder and of its presets.
        files: the files of its data folder.
        config: its settings.
        data: settings of its data.
        tokenizer: that of models trained from scratch; empty = the one that is trained with the data.
        deviations: where the experiment departs from the paper.
    """

    name: str
    files: Files
    config: SectionConfig
    data: object
    tokenizer: str
    deviations: Sequence[str]


def with_data(name: str, settings: EvalConfig, folder: Path) -> EvalConfig:
    """Return the settings of an evaluation with its data in a folder of benchmarks, unless they name it themselves.

    The data is in the folder of the evaluation's own name, or in that of its task.

    Raises:
        UserError: the folder holds no data of the task.
    """
    if settings.dataset:
        return settings
    own = folder / name
    return replace(settings, dataset=str(own if own.exists() else find_data(settings.task, folder)))


def reproduce(
    section: Section,
    out: Path,
    command: Sequence[str] = (),
    running: dict[str, Path] | None = None,
    nproc_per_node: str | None = None,
) -> Run:
    """Run whatever is not done yet, then write results, plots and report.

    A run can be given more tasks, seeds and comparisons later; what is done with the same settings is kept. What is
    refused is refused before anything is written.

    Args:
        running: is kept filled with the folders of the stages under way, for a progress display.
        nproc_per_node: processes of every training and evaluation; stages then run one after the other.

    Raises:
        UserError: the data of a task cannot be used.
        UserError: `out` holds another run or another configuration, an existing model cannot be loaded, or a stage
            refused its input.
    """
    config, stages = section.config, section_stages(section, out)
    is_current = preflight(section, out, nproc_per_node)
    if not is_current:
        _check_bases(config)
    with Run.start(
        out,
        kind="reproduce",
        config=config,
        command=command,
        seed=config.seed,
        changeable=config.changeable,
        is_current=is_current,
    ) as run:
        seconds = run_stages(out, stages, config, nproc_per_node, running)
        if not run.is_complete:
            run.write_json(RESULTS_FILE, results(section, out, {**seconds, "total": round(run.seconds, 1)}))
        write_section_report(out)
        if not run.is_complete:
            run.finish()
        return run


def preflight(section: Section, out: Path, nproc_per_node: str | None) -> bool:
    """Return whether nothing is left to do; check what can be checked of what is, which a plan does as well.

    Raises:
        UserError: see `reproduce`; models that exist are not looked at.
    """
    config, stages = section.config, section_stages(section, out)
    existing = existing_run(out, "reproduce", config, {}, config.changeable)
    is_same = existing is not None and has_settings(existing, config)
    is_current = not missing_stages(stages) and is_same and (out / RESULTS_FILE).exists()
    Run.look(out, kind="reproduce", config=config, changeable=config.changeable, is_current=is_current)
    if not is_current:
        _check_evaluations(config, out)
        check_stages(stages, nproc_per_node)
    return is_current


def _check_bases(config: SectionConfig) -> None:
    """Raise UserError now rather than after hours of other stages where an existing model cannot be loaded."""
    for base in filter(None, (config.anchor.base, config.aug.base, config.vanilla_aug)):
        shape = base_config(base, trust_remote_code=config.compose.trust_remote_code)
        tokenizer = load_tokenizer(base, trust_remote_code=config.compose.trust_remote_code)
        if "mixture" in config.compare and base != config.vanilla_aug:
            check_mixable(without_weights(shape), tokenizer, base)


def _check_evaluations(config: SectionConfig, out: Path) -> None:
    """Raise UserError now where the data of a task, unless it is still to be made, cannot be asked."""
    settings = config.evaluations()
    for name in config.tasks:
        path = Path(settings[name].dataset).resolve()
        if path.exists() or not path.is_relative_to(out.resolve() / "data"):
            check_data(settings[name])
            if set(WITH_EXAMPLES) & set(config.compare) and has_option(settings[name].task, "shots"):
                check_data(replace(settings[name], options={**settings[name].options, "shots": config.num_examples}))


def section_stages(section: Section, out: Path, nproc_per_node: str | None = None) -> list[Stage]:
    """Return the stages of the experiment in a folder, evaluations last: what others wait for goes first."""
    systems = _systems(section, out)
    models = [model for system in systems.all() for model in system.models]
    stages = [stage_in(systems.out, "data", ("data", section.name), section.data, result="manifest.json")]
    stages += [stage for model in models for stage in model.stages]
    stages += [stage for model in models for stage in systems.evaluations(model)]
    unique = {stage.name: stage for stage in stages}
    return [stage.launched(nproc_per_node) for stage in unique.values()]


def _systems(section: Section, out: Path) -> Systems:
    # Stages and their settings name folders: these have to mean the same from another working directory.
    out = out.resolve()
    return Systems(section.config, out, section.files, section.tokenizer or str(out / "data" / "tokenizer"))


def results(section: Section, out: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return `results.json`: what was measured of every system, and in which runs; `seconds` are wall-clock."""
    return {
        "section": section.name,
        "preset": section.config.preset,
        "seed": section.config.seed,
        "tasks": list(section.config.tasks),
        "systems": [_system(system, section.config, out) for system in _systems(section, out).all()],
        "deviations": list(section.deviations),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "seconds": dict(seconds),
    }


def _system(system: System, config: SectionConfig, out: Path) -> dict[str, Any]:
    settings = config.evaluations()
    runs = [_measured(model, asked_of(model, settings, config.tasks), out) for model in system.models]
    return {"key": system.key, "label": system.label, "group": system.group, "runs": runs}


def _measured(model: Trained, tasks: Sequence[str], out: Path) -> dict[str, Any]:
    """Return the figures of one model and the folders, relative to `out`, that they were read from."""
    evaluations = {task: f"eval/{task}/{model.name}" for task in tasks}
    run = model.stages[-1].name if model.stages else model.model
    is_trained = bool(model.stages) and not model.is_asked_otherwise
    facts = read_run(out / run).facts if is_trained else {}
    kept = ("trainable_parameters", "matched_parameters", "difference_percent")
    cost = cost_rows([out / run])[0] | {"run": run} if is_trained and is_training(out / run) else None
    return {
        "seed": model.seed,
        "run": run,
        "is_trained": is_trained,
        **{fact: facts.get(fact) for fact in kept},
        "cost": cost,
        "evaluations": evaluations,
        "metrics": {task: read_json(out / folder / METRICS_FILE)["metrics"] for task, folder in evaluations.items()},
    }
