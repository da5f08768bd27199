"""A training as a job: what it reads and makes sure of before any weights are read, its plan, and its run.

Plan and run begin with the same steps, `Run.look` and `prepare`, so that a plan refuses what the run would.
"""

import copy
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.bases.sources import quiet_libraries
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.configuration import context_length
from calmctl.modeling.context import AugContext, contexts_of
from calmctl.modeling.layers import text_config
from calmctl.modeling.stored.stored_tokenizer import check_storable
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.processes.ranks import current_ranks
from calmctl.runs.record import Kind
from calmctl.runs.run import Run
from calmctl.runs.shared import started_run
from calmctl.training.aug_examples import described_reading, reading_facts, with_aug_tokens
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import newest_sealed
from calmctl.training.configs import TrainingConfig
from calmctl.training.cost import CompositionFlops
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import Examples, load_examples
from calmctl.training.interruption import interrupted_training
from calmctl.training.packing import pack
from calmctl.training.plan import Plan
from calmctl.training.session import check_settings, set_up, train_into
from calmctl.training.settings import TrainSettings
from calmctl.training.validation import hold_out
from data_builders.files import sha256_of

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """What a job knows of its model without weights.

    Attributes:
        plan: what it comes to; of a composition as if augs read as many tokens as the anchor.
        stored: configuration that the model will be stored with.
        bases: those of what reads the tokens: the shortest context counts.
        segmenters: per aug, how it reads the data, if it has a tokenizer of its own.
        warnings: what is to be known, and no reason to refuse the job.
    """

    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    stored: PreTrainedConfig
    bases: Sequence[PreTrainedConfig]
    segmenters: Sequence[Segmenter | None] = ()
    warnings: Sequence[str] = ()

    @property
    def context(self) -> int | None:
        """Return how many of the anchor's tokens the model can read; None where no base says."""
        own = self.segmenters or [None] * (len(self.bases) - 1)
        shared = [base for base, segmenter in zip(self.bases, [None, *own], strict=True) if segmenter is None]
        return min((limit for base in shared if (limit := context_length(base))), default=None)

    @property
    def aug_contexts(self) -> list[AugContext]:
        """Return how far augs with tokenizers of their own can read."""
        lengths = [context_length(base) for base in self.bases[1:]] if self.segmenters else []
        return contexts_of(self.segmenters, lengths)


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


@dataclass(frozen=True)
class Prepared:
    """A job that nothing is to be said against, with what it learns from and is validated on; None without steps."""

    planned: Planned
    examples: Examples | None = None
    held_out: Examples | None = None


def prepare(job: Job) -> Prepared:
    """Check everything that can be told before weights are read, and tokenise the data.

    Raises:
        UserError: settings do not fit this machine or each other, models do not fit, or the data cannot be used.
    """
    quiet_libraries()
    check_settings(job.settings, is_validated=bool(job.config.validation))
    planned = job.plan()
    check_storable(planned.tokenizer, planned.stored)
    if not job.settings.steps:
        return Prepared(planned)
    prepared = Prepared(planned, *_examples(job, planned))
    _check_examples(job, prepared)
    return prepared


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
            prepared = prepare(job)
            set_up(job.settings, config.seed)
            model = job.build(prepared.planned.tokenizer)
            prepared, reading = _with_aug_tokens(_as_built(prepared, model), run.path)
            said = job.begin(model, prepared.examples, run.path)
            train_into(
                run,
                config,
                model,
                prepared.planned.tokenizer,
                prepared.examples,
                prepared.held_out,
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
    prepared = prepare(job)
    facts = prepared.planned.plan.shown()
    train, warnings = facts.pop("train"), prepared.planned.warnings
    if warnings:
        facts["warnings"] = list(warnings)
    checkpoint = newest_sealed(out / "checkpoints")
    status = "new" if existing is None else f"goes on from {checkpoint.name if checkpoint else 'the beginning'}"
    reading = _reading(prepared)
    return {"run": status, **facts, **_data_facts(job, prepared), **reading, "seed": job.config.seed, "train": train}


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


def _examples(job: Job, planned: Planned) -> tuple[Examples, Examples | None]:
    """Return what to train on, and what to validate on, if anything."""
    settings, tokenizer = job.settings, planned.tokenizer
    # Packing cuts long documents itself.
    context, augs = (None, []) if settings.packing else (planned.context, planned.aug_contexts)
    examples, held_out = load_examples(Path(job.config.dataset), tokenizer, settings, context, augs), None
    if job.config.validation:
        held_out = load_examples(Path(job.config.validation), tokenizer, settings, context, augs)
    elif settings.validation_share:
        if len(examples) < 2:
            raise UserError(
                f"{job.config.dataset}: train.validation_share needs two examples at least; give more, "
                "--validation FILE, or train.validation_share=0 train.keep_best=false"
            )
        examples, held_out = hold_out(examples, settings.validation_share, job.config.seed, settings.validation_limit)
    if settings.packing:
        width = min(settings.context, planned.context or sys.maxsize)
        augs = planned.aug_contexts
        return pack(examples, width, augs), pack(held_out, width, augs) if held_out is not None else None
    return examples, held_out


def _as_built(prepared: Prepared, model: PreTrainedModel) -> Prepared:
    """Return the same with what the model itself reads with: how it was loaded may decide how texts are cut."""
    if not isinstance(model, ComposedModelForCausalLM):
        return prepared
    return replace(prepared, planned=replace(prepared.planned, segmenters=model.model.segmenters))


def _with_aug_tokens(prepared: Prepared, folder: Path) -> tuple[Prepared, dict[str, Any]]:
    """Return the same with what augs with tokenizers of their own read of the examples, and what is said of it."""
    segmenters, reading = prepared.planned.segmenters, _reading(prepared)
    if not reading:
        return prepared, reading
    for index, facts in enumerate(reading["reading"]):
        if facts is not None and current_ranks().is_first:
            _LOGGER.info("aug %s: %s", index, described_reading(facts))
    examples, held_out = (
        with_aug_tokens(each, segmenters, folder) if each is not None else None
        for each in (prepared.examples, prepared.held_out)
    )
    return replace(prepared, examples=examples, held_out=held_out), reading


def _reading(prepared: Prepared) -> dict[str, Any]:
    """Return how augs with tokenizers of their own read the data, and what it costs; nothing where there are none.

    `flops_per_token` is for each of the anchor's tokens, in rows of the mean length; `flops_ratio` is to what it would
    be if augs read as many tokens as the anchor.
    """
    examples, segmenters = prepared.examples, prepared.planned.segmenters
    if examples is None or all(segmenter is None for segmenter in segmenters):
        return {}
    reading: dict[str, Any] = {"reading": reading_facts(examples, segmenters)}
    if isinstance(plain := prepared.planned.plan.model.flops, CompositionFlops):
        read = [1.0 if each is None else each["aug_tokens_per_anchor_token"] for each in reading["reading"]]
        length = round(float(examples.lengths.mean()))
        flops = replace(plain, aug_tokens=read).training(length)
        reading |= {"flops_per_token": round(flops), "flops_ratio": round(flops / plain.training(length), 3)}
    return reading


def _check_examples(job: Job, prepared: Prepared) -> None:
    """Refuse token ids that the model does not have, and a curriculum without its levels."""
    base = prepared.planned.bases[0]
    known, data = text_config(base).vocab_size, job.config.dataset
    for file, examples in ((data, prepared.examples), (job.config.validation or data, prepared.held_out)):
        if examples is not None and len(examples.ids) and (largest := int(examples.ids.max())) >= known:
            raise UserError(
                f"{file}: token id {largest}, and the {base.model_type} model knows {known}; use its own tokenizer"
            )
    if job.settings.curriculum.field and prepared.examples is not None:
        Curriculum(job.settings.curriculum, prepared.examples)


def _data_facts(job: Job, prepared: Prepared) -> dict[str, Any]:
    """Return what a plan says of the data: rows of the file, examples and tokens of them, and passes over it."""
    examples, held_out, settings = prepared.examples, prepared.held_out, job.settings
    if examples is None:
        return {"steps": 0}
    tokens = int(examples.lengths.sum())
    return {
        "rows": examples.counts["rows"],
        "examples": len(examples),
        "tokens": tokens,
        "validation_examples": len(held_out) if held_out is not None else 0,
        "steps": settings.steps,
        "passes_over_the_data": round(Batches(examples, settings, job.config.seed, 0).passes, 2),
    }
