"""A training as a job: its inputs, the checks before weights are read, its plan, and its run.

Plan and run begin with the same steps, `Run.look` and `prepare`, so that a plan fails where the run would.
"""

import copy
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


@dataclass(frozen=True)
class Job:
    """A training of any kind.

    Attributes:
        config: the whole configuration, which identifies the run.
        reads: name -> checksum of the inputs other than data.
        plan: checks the models without their weights, and plans; may raise UserError.
        build: returns the model to train; called after seeding.
        begin: (model, examples, run folder) -> further entries for `run.json`; gets the model ready for training; may
            raise UserError.
        merge_bases: save a self-contained model, bases included.
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
        """Return the training settings."""
        return self.config.settings

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Return the checksums of all inputs by name, as `Run.start` takes them."""
        files = {"data": self.config.dataset, "validation": self.config.validation}
        data = {name: sha256_of(Path(file)) if Path(file).is_file() else file for name, file in files.items() if file}
        return {**data, **self.reads}


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
    """Train as configured: start, resume, or return at once if complete.

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
    """Return what running the job would do, without writing anything or reading weights.

    Raises:
        UserError: the run would fail before it reads weights.
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
    """Raise UserError if a model cannot use an attention implementation here; empty = transformers' choice."""
    if not attention:
        return
    try:
        is_trusted = type(config).__module__.startswith("transformers_modules.")  # its code ran at loading
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation=attention, trust_remote_code=is_trusted
            )
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}={attention}: {reason}") from error
