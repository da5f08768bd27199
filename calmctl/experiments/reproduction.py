"""Run an experiment of the paper: data, training, evaluation, results and report.

Data -> m_A and m_B -> the composition and the systems it is compared with -> every task on every model ->
`results.json` and report. Each stage is a `calmctl` command in its own process (see stages.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calmctl.baselines.configs import BaselineConfig
from calmctl.environment import git_commit, hardware
from calmctl.evaluation.config import check_data
from calmctl.experiments.config import ExperimentConfig
from calmctl.experiments.stage import Stage, stage_in
from calmctl.experiments.stages import Progress, missing_stages, run_stages
from calmctl.experiments.systems import Files, System, Systems, Trained
from calmctl.inference.mixture import check_mixable
from calmctl.modeling.bases.sources import base_config, load_tokenizer, without_weights
from calmctl.processes.launch import parse_num_processes
from calmctl.processes.ranks import planned_processes
from calmctl.reporting.costs import cost_rows, is_training
from calmctl.reporting.results import RESULTS_FILE
from calmctl.reporting.systems_table import system_row
from calmctl.runs.identity import existing_run, has_settings
from calmctl.runs.record import METRICS_FILE
from calmctl.runs.run import Run, read_run
from calmctl.schema import differing_settings
from calmctl.training.checks import check_settings
from calmctl.training.configs import ComposeConfig, TrainConfig
from data_builders.checks import CHECKS
from data_builders.values import read_json


@dataclass(frozen=True)
class Experiment:
    """The part of a reproduction that is specific to one experiment.

    Attributes:
        name: of its presets.
        config: its settings.
        data: settings of its data.
        files: names of the files in its data folder.
        systems: the class that builds its systems.
        tokenizer: of models trained from scratch; empty = the one that the data stage builds.
        deviations: a sentence for each departure from the paper.
        values: group of systems -> the value that the headline CALM has of the number varied in the group.
        token_ids: tokenizer folder -> number of token ids, for plans made before the data exist; None = that of
            `tokenizer`, or `data.vocab_size`.
        check: raises UserError for settings that only this experiment can check, before any stage runs.
        builder: name of its data builder; empty = the experiment's name.
        exports: more files to write beside `results.json`: file name -> function that takes the content of
            `results.json` and the folder, and returns the file's content.
    """

    name: str
    config: ExperimentConfig
    data: object
    files: Files
    systems: type[Systems]
    tokenizer: str
    deviations: Sequence[str]
    values: Mapping[str, float | None] = field(default_factory=dict)
    token_ids: Callable[[str], int] | None = None
    check: Callable[[], None] | None = None
    builder: str = ""
    exports: Mapping[str, Callable[[Mapping[str, Any], Path], dict[str, Any]]] = field(default_factory=dict)


def reproduce(
    experiment: Experiment,
    out: Path,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    nproc_per_node: str | None = None,
) -> Run:
    """Run all incomplete stages, then write results, plots and report.

    A run may be continued with more tasks, seeds and comparisons; stages that are complete with the same settings are
    kept. Everything that can be checked is checked before anything is written.

    Args:
        progress: told which stages are running and finished, for a display.
        nproc_per_node: processes of every training and evaluation; stages then run one at a time.

    Raises:
        UserError: the data of a task cannot be used, `out` holds another run or another configuration, an existing
            model cannot be loaded, or a stage rejected its input.
    """
    config, stages = experiment.config, experiment_stages(experiment, out)
    is_current = preflight(experiment, out, nproc_per_node)
    if not is_current:
        _check_bases(config)
    with Run.start(
        out,
        kind="reproduce",
        config=config,
        command=command,
        seed=config.seed,
        is_current=is_current,
    ) as run:
        seconds = run_stages(out, stages, config, nproc_per_node, progress)
        if not run.is_complete:
            found = results(experiment, out, {**seconds, "total": round(run.seconds, 1)})
            run.write_json(RESULTS_FILE, found)
            for file, export in experiment.exports.items():
                run.write_json(file, export(found, out))
        from calmctl.reporting.report import write_report  # with matplotlib, which a plan can do without

        write_report(out)
        if not run.is_complete:
            run.finish()
        return run


def preflight(experiment: Experiment, out: Path, nproc_per_node: str | None) -> bool:
    """Return whether the run is already complete; if not, check everything that can be checked before it starts.

    Plans (`--dry-run`) make the same checks.

    Raises:
        UserError: see `reproduce`, except for existing models, which are not checked here.
    """
    config, stages = experiment.config, experiment_stages(experiment, out)
    existing = existing_run(out, "reproduce", config, {})
    is_same = existing is not None and has_settings(existing, config, comparisons=True)
    made = [RESULTS_FILE, *experiment.exports]
    is_current = not missing_stages(stages) and is_same and all((out / file).exists() for file in made)
    Run.look(out, kind="reproduce", config=config, is_current=is_current)
    if not is_current:
        _check_evaluations(config, out)
        _check_stages(stages, nproc_per_node)
        if experiment.check is not None:  # last: it needs data settings that have passed their own check
            experiment.check()
    return is_current


def _check_stages(stages: Sequence[Stage], nproc_per_node: str | None) -> None:
    """Check the settings of the data and of every training that is not complete.

    Raises:
        UserError: the data cannot be built, or a training cannot run on this machine or with this many processes.
    """
    with planned_processes(parse_num_processes(nproc_per_node) if nproc_per_node is not None else 1):
        for stage in stages:
            if not stage.is_complete:
                _check_stage(stage)


def _check_stage(stage: Stage) -> None:
    config = stage.config
    if stage.command[0] == "data":
        CHECKS[stage.command[1]](config)
    elif isinstance(config, TrainConfig | ComposeConfig | BaselineConfig):
        check_settings(config.settings, is_validated=bool(config.validation))


def _check_bases(config: ExperimentConfig) -> None:
    """Raise UserError if an existing model cannot be loaded: now, not after hours of other stages."""
    mixed = (config.anchor.base, config.aug.base) if "mixture" in config.compare else ()
    for base in config.existing_models():
        shape = base_config(base, trust_remote_code=config.compose.trust_remote_code)
        tokenizer = load_tokenizer(base, trust_remote_code=config.compose.trust_remote_code)
        if base in mixed:
            check_mixable(without_weights(shape), tokenizer, base)


def _check_evaluations(config: ExperimentConfig, out: Path) -> None:
    """Raise UserError if the data of a task cannot be used; data that the data stage will build is not checked."""
    settings = config.evaluations()
    for name in config.tasks:
        path = Path(settings[name].dataset).resolve()
        if not settings[name].dataset or (not path.exists() and path.is_relative_to(out.resolve() / "data")):
            continue
        for variant in config.variants(settings[name]):
            check_data(variant)


def experiment_stages(experiment: Experiment, out: Path, nproc_per_node: str | None = None) -> list[Stage]:
    """Return the stages of an experiment, dependencies first and evaluations last."""
    systems = _systems(experiment, out)
    models = [model for system in systems.all() for model in system.models]
    stages = [
        stage_in(
            systems.out,
            "data",
            ("data", experiment.builder or experiment.name),
            experiment.data,
            result="manifest.json",
        )
    ]
    stages += [stage for model in models for stage in model.stages]
    stages += [stage for model in models for stage in systems.evaluations(model)]
    unique = {stage.name: stage for stage in stages}
    return [stage.launched(nproc_per_node) for stage in unique.values()]


def _systems(experiment: Experiment, out: Path) -> Systems:
    # The settings of stages name folders: absolute paths stay valid in another working directory.
    out = out.resolve()
    tokenizer = experiment.tokenizer or str(out / "data" / "tokenizer")
    return experiment.systems(experiment.config, out, experiment.files, tokenizer)


def results(experiment: Experiment, out: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the content of `results.json`: the figures and runs of every system; `seconds` are wall-clock."""
    systems = _systems(experiment, out)
    return {
        "section": experiment.name,
        "preset": experiment.config.preset,
        "seed": experiment.config.seed,
        "tasks": list(experiment.config.tasks),
        "may_differ": differing_settings(experiment.config),
        "systems": [_system(system, systems, out) for system in systems.all()],
        "values": dict(experiment.values),
        "deviations": list(experiment.deviations),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "seconds": dict(seconds),
    }


def _system(system: System, systems: Systems, out: Path) -> dict[str, Any]:
    row = system_row(system.key)
    runs = [_measured(model, systems.asked_of(model), out) for model in system.models]
    return {
        "key": system.key,
        "label": system.label or row.label,
        "group": row.group,
        "value": system.value,
        "runs": runs,
    }


def _measured(model: Trained, tasks: Sequence[str], out: Path) -> dict[str, Any]:
    """Return the metrics of one model and the run folders, relative to `out`, that hold them."""
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
        "others": [stage.name for stage in model.stages[:-1] if stage.command[0] == "train" and is_trained],
        "evaluations": evaluations,
        "metrics": {task: read_json(out / folder / METRICS_FILE)["metrics"] for task, folder in evaluations.items()},
    }
