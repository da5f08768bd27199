"""A training as a job: what it reads and makes sure of before any weights are read, its plan, and its run.

Plan and run begin with the same steps, `Run.look` and `prepare`, so that a plan refuses what the run would.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.bases.sources import quiet_libraries
from calmctl.modeling.stored.stored_tokenizer import check_storable
from calmctl.runs.record import Kind
from calmctl.runs.run import Run
from calmctl.runs.shared import started_run
from calmctl.training.checkpoints import newest_sealed
from calmctl.training.configs import TrainingConfig
from calmctl.training.examples import Examples
from calmctl.training.interruption import interrupted_training
from calmctl.training.prepared import Planned, Prepared, prepared
from calmctl.training.session import check_settings, set_up, train_into
from calmctl.training.settings import TrainSettings
from data_builders.files import sha256_of

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A training, whatever it trains.

    Attributes:
        config: all of its configuration, which identifies the run.
        reads: checksums of what it reads beside its data, by name.
        plan: makes sure of the models; raises UserError for what can be told without weights.
        build: returns the model to train; random numbers have been seeded.
        begin: makes the model, given its examples and the folder of the run, ready to be trained, and returns what else
            `run.json` says; may raise UserError.
        merge_bases: write a model that needs no other.
    """

    kind: Kind
    config: TrainingConfig
    reads: Mapping[str, str]
    plan: Callable[[], Planned]
    build: Callable[[PreTrainedTokenizerBase], PreTrainedModel]
    begin: Callable[[PreTrainedModel, Examples | None, Path], Mapping[str, Any]] = lambda *_: {}
    merge_bases: bool = False

    @property
    def settings(self) -> TrainSettings:
        """Return how the model is trained."""
        return self.config.settings

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Return the checksums of all that it reads, by name, as `Run.start` takes them."""
        files = {"data": self.config.dataset, "validation": self.config.validation}
        data = {name: sha256_of(Path(file)) if Path(file).is_file() else file for name, file in files.items() if file}
        return {**data, **self.reads}


def prepare(job: Job) -> Prepared:
    """Check everything that can be told before weights are read, and tokenise the data.

    Raises:
        UserError: settings do not fit this machine or each other, models do not fit, or the data cannot be used.
    """
    quiet_libraries()
    check_settings(job.settings, is_validated=bool(job.config.validation))
    planned = job.plan()
    check_storable(planned.tokenizer, planned.stored)
    return prepared(planned)


def run_job(job: Job, out: Path, command: Sequence[str] = ()) -> Run:
    """Train as configured; resume, or return at once when complete.

    Raises:
        UserError: see `prepare`, and `Run.start`.
    """
    config = job.config
    with started_run(
        out,
        kind=job.kind,
        config=config,
        command=command,
        seed=config.seed,
        inputs=job.inputs,
        interrupted=lambda: interrupted_training(out / "checkpoints"),
    ) as run:
        if not run.is_complete:
            run.report_progress("tokenising", 0, job.settings.steps)
            ready = prepare(job)
            set_up(job.settings, config.seed)
            model = job.build(ready.planned.tokenizer)
            ready, reading = ready.as_built(model).with_aug_tokens(run.path)
            said = job.begin(model, ready.examples, run.path)
            train_into(
                run,
                config,
                model,
                ready.planned.tokenizer,
                ready.examples,
                ready.held_out,
                merge_bases=job.merge_bases,
                facts={**reading, **said},
            )
        return run


def plan_job(job: Job, out: Path) -> dict[str, Any]:
    """Return what a run of the job would do; nothing is written, and no weights are read.

    Raises:
        UserError: what the run would refuse before it reads weights.
    """
    existing = Run.look(out, kind=job.kind, config=job.config, inputs=job.inputs)
    if existing is not None and existing.is_complete:
        return {"run": "complete: nothing is left to do", "data": job.config.dataset, "seed": job.config.seed}
    ready = prepare(job)
    facts = ready.planned.plan.shown()
    train, warnings = facts.pop("train"), ready.planned.warnings
    if warnings:
        facts["warnings"] = list(warnings)
    checkpoint = newest_sealed(out / "checkpoints")
    status = "new" if existing is None else f"goes on from {checkpoint.name if checkpoint else 'the beginning'}"
    return {
        "run": status, **facts, **ready.facts(), **ready.reading(), "seed": job.config.seed, "train": train,
    }  # fmt: skip


def check_attention(config: PreTrainedConfig, attention: str, name: str = "attention") -> None:
    """Raise UserError where a model cannot be given an attention implementation here; empty = transformers' choice."""
    if not attention:
        return
    try:
        is_trusted = type(config).__module__.startswith("transformers_modules.")  # its code has run already
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation=attention, trust_remote_code=is_trusted
            )
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}={attention}: {reason}") from error


def require(value: object, name: str, option: str) -> None:
    """Raise UserError unless a setting is given."""
    if not value:
        raise UserError(f"{name} is not set; give {option} or {name}=...")
