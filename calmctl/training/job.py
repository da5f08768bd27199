"""A training as a job: its inputs, the checks before weights are read, its plan, and its run.

Plan and run begin with the same steps, `Run.look` and `prepare`, so that a plan fails where the run would.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.config import to_dict
from calmctl.errors import UserError
from calmctl.modeling.bases.sources import quiet_libraries
from calmctl.modeling.stored.stored_tokenizer import check_storable
from calmctl.modeling.stored.warm_start import parts_sha256
from calmctl.processes.ranks import current_ranks
from calmctl.runs.record import RUN_FILE, Kind, RunInfo
from calmctl.runs.run import Run
from calmctl.runs.shared import started_run
from calmctl.training.checkpoints import interrupted_training, newest_sealed
from calmctl.training.checks import check_settings
from calmctl.training.configs import TrainingConfig
from calmctl.training.examples import Examples
from calmctl.training.prepared import Planned, Prepared, in_steps, prepared
from calmctl.training.settings import TrainSettings
from data_builders.row_sources import find_rows

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A training of any kind.

    Attributes:
        config: the whole configuration, which identifies the run.
        reads: returns name -> checksum of the inputs other than data; reads all weights.
        plan: checks the models without their weights, and plans; may raise UserError.
        build: returns the model to train; called after seeding.
        begin: (model, examples, run folder) -> further entries for `run.json`; gets the model ready for training; may
            raise UserError.
        merge_bases: save a self-contained model, bases included.
    """

    kind: Kind
    config: TrainingConfig
    reads: Callable[[], Mapping[str, str]]
    plan: Callable[[], Planned]
    build: Callable[[PreTrainedTokenizerBase], PreTrainedModel]
    begin: Callable[[PreTrainedModel, Examples | None, Path], Mapping[str, Any]] = lambda *_: {}
    merge_bases: bool = False

    @property
    def settings(self) -> TrainSettings:
        """Return the training settings."""
        return self.config.settings

    @cached_property
    def begins_with(self) -> dict[str, str]:
        """Return the checksum of the bridges or adapters to begin with, if there are any."""
        return {"init_from": parts_sha256(self.config.init_from)} if self.config.init_from else {}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Return the checksums of all inputs by name, as `Run.start` takes them."""
        data = {**_read("data", self.config.datasets), **_read("validation", self.config.validations)}
        return {**data, **self.reads(), **self.begins_with}


def prepare(job: Job) -> Prepared:
    """Check everything that can be checked without weights, and tokenise the data.

    Raises:
        UserError: settings do not fit this machine or each other, models do not fit, or the data cannot be used.
    """
    quiet_libraries()
    check_settings(job.settings, is_validated=bool(job.config.validation))
    planned = job.plan()
    check_storable(planned.tokenizer, planned.stored)
    return prepared(planned)


def run_job(job: Job, out: Path, command: Sequence[str] = ()) -> Run:
    """Train as configured: start, resume, extend, or return at once if complete.

    Raises:
        UserError: see `prepare`, and `Run.start`.
    """
    config, checkpoints = job.config, out / "checkpoints"
    extended: dict[str, Any] = {}
    with started_run(
        out,
        kind=job.kind,
        config=config,
        command=command,
        seed=config.seed,
        inputs=job.inputs,
        on_growth=partial(_note_growth, extended),
        interrupted=lambda: interrupted_training(checkpoints),
    ) as run:
        if not run.is_complete:
            run.report_progress("tokenising", 0, 0)
            ready = prepare(job)
            if current_ranks().is_first:
                _say_how_long(ready, out)
                if extended:
                    _LOGGER.info("%s: %s", out, _extension(ready, extended, checkpoints))
            from calmctl.training.session import set_up, train_into  # the Trainer, which a plan can do without

            set_up(job.settings, config.seed)
            model = job.build(ready.planned.tokenizer)
            ready, reading = ready.as_built(model).with_aug_tokens(run.path)
            said = job.begin(model, ready.examples, run.path)
            train_into(
                run,
                ready.planned.config,
                model,
                ready.planned.tokenizer,
                ready.examples,
                ready.held_out,
                merge_bases=job.merge_bases,
                facts={**reading, **said},
            )
        return run


def plan_job(job: Job, out: Path) -> dict[str, Any]:
    """Return what running the job would do, without writing anything or reading weights.

    Raises:
        UserError: the run would fail before it reads weights.
    """
    extended: dict[str, Any] = {}
    note = partial(_note_growth, extended)
    inputs = job.inputs if (out / RUN_FILE).exists() else {}  # otherwise there are none to compare them with
    existing = Run.look(out, kind=job.kind, config=job.config, inputs=inputs, on_growth=note)
    if existing is not None and existing.is_complete and not extended:
        return {"run": "complete: nothing is left to do", "data": job.config.dataset, "seed": job.config.seed}
    ready = prepare(job)
    facts = ready.planned.plan.shown()
    facts.pop("train")  # with epochs as steps; shown are the settings as given
    train, warnings = to_dict(job.settings), ready.planned.warnings
    if warnings:
        facts["warnings"] = list(warnings)
    checkpoint = newest_sealed(out / "checkpoints")
    if job.config.init_from:
        facts["init_from"] = {"source": job.config.init_from, "sha256": job.begins_with["init_from"]}
    status = "new" if existing is None else f"goes on from {checkpoint.name if checkpoint else 'the beginning'}"
    if extended:
        facts["extended"] = _extension(ready, extended, out / "checkpoints")
    return {
        "run": status, **facts, **ready.facts(), **ready.reading(), "seed": job.config.seed, "train": train,
    }  # fmt: skip


def _read(name: str, sources: Sequence[str]) -> dict[str, str]:
    """Return the checksums of datasets: one by this name, several numbered.

    Raises:
        UserError: see `find_rows`.
    """
    found = [find_rows(source).sha256 for source in sources]
    return {name: found[0]} if len(found) == 1 else {f"{name} {number}": each for number, each in enumerate(found, 1)}


def _note_growth(noted: dict[str, Any], run: RunInfo, before: Mapping[str, Any]) -> None:
    """Note what the settings of a run were that is to be extended; see `Run.start`.

    Raises:
        UserError: it is finished, and its checkpoints are gone.
    """
    if run.is_complete and any(before.values()) and newest_sealed(run.path / "checkpoints") is None:
        raise UserError(
            f"{run.path}: {_values(before)} is finished and has no checkpoint left to go on from; choose another --out "
            f"(--init-from {run.path} starts from its bridges or adapters)"
        )
    noted |= before


def _say_how_long(ready: Prepared, out: Path) -> None:
    """Log the steps of a training and how often it reads its data."""
    if ready.examples is not None:
        facts = ready.facts()
        _LOGGER.info(
            "%s: %s steps, %s passes over %s examples",
            out, f"{facts['steps']:,}", f"{facts['passes_over_the_data']:g}", f"{facts['examples']:,}",
        )  # fmt: skip


def _extension(ready: Prepared, before: Mapping[str, Any], checkpoints: Path) -> str:
    """Return what extending a run means for its result, in one sentence.

    Args:
        before: the settings that grew, `train.steps` or `train.epochs`, with their values in the run so far.
    """
    from calmctl.training.optimizer import learned_alike
    from calmctl.training.validation import out_of_patience, state_of

    config, checkpoint = ready.planned.config, newest_sealed(checkpoints)
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if ready.examples is None or not done:
        return f"extended after {_values(before)}, from the beginning"
    if checkpoint and out_of_patience(state_of(checkpoint), config.settings):
        return (
            f"had stopped early after step {done:,} (train.patience), as a longer run would have: nothing is left to do"
        )
    earlier = {name.rpartition(".")[2]: value for name, value in before.items()}
    old = in_steps(replace(config, train=replace(config.train, **{"steps": 0, **earlier})), ready.examples).settings
    said = f"extended from {old.steps:,} to {config.settings.steps:,} steps, goes on after step {done:,}; "
    if learned_alike(config.settings, old, done):
        return said + "its learning rates so far are those of an uninterrupted run, and so are the weights it comes to"
    return said + (
        f"from here on the learning rate is that of a run of {config.settings.steps:,} steps, so far it was that of "
        f"one of {old.steps:,}: an uninterrupted run would end elsewhere"
    )


def _values(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in settings.items())
