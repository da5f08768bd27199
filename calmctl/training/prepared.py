"""The data of a training, prepared before weights are read: tokenised, held out, packed, checked against the model."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.configuration import declared_context
from calmctl.modeling.context import AugContext, contexts_of
from calmctl.modeling.layers import text_config
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.processes.ranks import current_ranks
from calmctl.training.aug_examples import described_reading, reading_facts, with_aug_tokens
from calmctl.training.batches import Batches
from calmctl.training.configs import TrainingConfig
from calmctl.training.cost import CompositionFlops
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import Examples
from calmctl.training.mixing import in_shares, load_datasets
from calmctl.training.packing import pack
from calmctl.training.plan import Plan

_LOGGER = logging.getLogger(__name__)
HELD_OUT_STREAM = 0x7E57


@dataclass(frozen=True)
class Planned:
    """What is known of a training's model without its weights.

    Attributes:
        plan: size and cost; of a composition as if augs read as many tokens as the anchor.
        stored: configuration that the model will be saved with.
        bases: configurations of the anchor and the augs, or of the plain model.
        segmenters: per aug, how it reads the data if it has its own tokenizer; else None.
        warnings: shown to the user; no reason to refuse the training.
    """

    plan: Plan
    tokenizer: PreTrainedTokenizerBase
    stored: PreTrainedConfig
    bases: Sequence[PreTrainedConfig]
    segmenters: Sequence[Segmenter | None] = ()
    warnings: Sequence[str] = ()

    @property
    def context(self) -> int | None:
        """Return how many of the anchor's tokens all bases can read; None if no base says."""
        own = self.segmenters or [None] * (len(self.bases) - 1)
        shared = [base for base, segmenter in zip(self.bases, [None, *own], strict=True) if segmenter is None]
        virtual = getattr(self.stored, "virtual_tokens", 0)
        return min((limit - virtual for base in shared if (limit := declared_context(base))), default=None)

    @property
    def aug_contexts(self) -> list[AugContext]:
        """Return the context lengths of augs with their own tokenizers."""
        lengths = [declared_context(base) for base in self.bases[1:]] if self.segmenters else []
        return contexts_of(self.segmenters, lengths)

    @property
    def config(self) -> TrainingConfig:
        """Return the configuration of the training."""
        return self.plan.config


@dataclass(frozen=True)
class Prepared:
    """The training examples and held-out examples of a training; None without steps."""

    planned: Planned
    examples: Examples | None = None
    held_out: Examples | None = None

    def as_built(self, model: PreTrainedModel) -> "Prepared":
        """Return the same with the built model's own segmenters: how it was loaded may decide how texts are cut."""
        if not isinstance(model, ComposedModelForCausalLM):
            return self
        return replace(self, planned=replace(self.planned, segmenters=model.model.segmenters))

    def with_aug_tokens(self, folder: Path) -> tuple["Prepared", dict[str, Any]]:
        """Return the same with the tokens that augs with their own tokenizers read, and facts about them."""
        segmenters, reading = self.planned.segmenters, self.reading()
        if not reading:
            return self, reading
        for index, facts in enumerate(reading["reading"]):
            if facts is not None and current_ranks().is_first:
                _LOGGER.info("aug %s: %s", index, described_reading(facts))
        examples, held_out = (
            with_aug_tokens(each, segmenters, folder) if each is not None else None
            for each in (self.examples, self.held_out)
        )
        return replace(self, examples=examples, held_out=held_out), reading

    def reading(self) -> dict[str, Any]:
        """Return how augs with their own tokenizers read the data and what it costs; empty if there are none.

        `flops_per_token` is per anchor token, in rows of the mean length; `flops_ratio` is relative to augs that read
        as many tokens as the anchor.
        """
        examples, segmenters = self.examples, self.planned.segmenters
        if examples is None or all(segmenter is None for segmenter in segmenters):
            return {}
        reading: dict[str, Any] = {"reading": reading_facts(examples, segmenters)}
        if isinstance(plain := self.planned.plan.model.flops, CompositionFlops):
            read = [1.0 if each is None else each["aug_tokens_per_anchor_token"] for each in reading["reading"]]
            length = round(float(examples.lengths.mean()))
            flops = replace(plain, aug_tokens=read).training(length)
            reading |= {"flops_per_token": round(flops), "flops_ratio": round(flops / plain.training(length), 3)}
        return reading

    def facts(self) -> dict[str, Any]:
        """Return the plan's facts about the data: rows of the file, examples, tokens, steps, passes over the data."""
        examples, held_out, settings = self.examples, self.held_out, self.planned.config.settings
        if examples is None:
            return {"steps": 0}
        tokens = int(examples.lengths.sum())
        return {
            "rows": examples.counts["rows"],
            "examples": len(examples),
            **self._of_each_dataset(),
            "tokens": tokens,
            "validation_examples": len(held_out) if held_out is not None else 0,
            "steps": settings.steps,
            "passes_over_the_data": round(Batches(examples, settings, self.planned.config.seed, 0).passes, 2),
        }

    def _of_each_dataset(self) -> dict[str, Any]:
        """Return how many examples are of each dataset, those that are repeated as often as they are; {} for one."""
        names, examples = self.planned.config.datasets, self.examples
        if examples is None or examples.dataset_index is None:
            return {}
        sizes = np.bincount(examples.dataset_index, minlength=len(names)).tolist()
        return {"examples_by_dataset": dict(zip(names, sizes, strict=True))}


def prepared(planned: Planned) -> Prepared:
    """Tokenise the data of a training and hold out examples for validation.

    Raises:
        UserError: the data cannot be used, or not with this model.
    """
    if not planned.config.settings.trains:
        return Prepared(planned)
    examples, held_out = _examples(planned)
    plan = replace(planned.plan, config=in_steps(planned.config, examples))
    found = Prepared(replace(planned, plan=plan), examples, held_out)
    _check_examples(found)
    return found


def hold_out(examples: Examples, share: float, seed: int, limit: int = 0) -> tuple[Examples, Examples]:
    """Split examples at random into those to train on and a share (at least one, not all) to validate on.

    The answers of one conversation stay together: each is in the prompts of those after it.

    Args:
        limit: hold out at most this many (but all answers of at least one conversation); 0 = no limit.
    """
    _, row_of, sizes = np.unique(examples.rows, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, HELD_OUT_STREAM]).permutation(len(sizes))
    wanted = min(round(share * len(examples)), limit or len(examples))
    count = min(max(int((sizes[order].cumsum() <= wanted).sum()), 1), len(sizes) - 1)
    is_held_out = np.isin(row_of, order[:count])
    return examples.subset(np.flatnonzero(~is_held_out)), examples.subset(np.flatnonzero(is_held_out))


def in_steps(config: TrainingConfig, examples: Examples) -> TrainingConfig:
    """Return a configuration in which epochs over these examples are steps."""
    if not (epochs := config.train.epochs):
        return config
    steps = Batches(examples, config.settings, config.seed, pad_id=0).steps_for(epochs)
    return replace(config, train=config.train.taking(steps))


def _examples(planned: Planned) -> tuple[Examples, Examples | None]:
    """Return the training examples, and the held-out examples if there are any."""
    config, settings, tokenizer = planned.config, planned.config.settings, planned.tokenizer
    # Packing cuts long documents itself.
    context, augs = (None, []) if settings.packing else (planned.context, planned.aug_contexts)
    how = tokenizer, settings, context, augs, config.columns
    examples, held_out = load_datasets(config.datasets, *how), None
    if config.validation:
        held_out = load_datasets(config.validations, *how)
    elif settings.validation_share:
        if len(np.unique(examples.rows)) < 2:
            raise UserError(
                f"{', '.join(config.datasets)}: train.validation_share needs two rows at least; give more, "
                "--validation FILE, or train.validation_share=0 train.keep_best=false"
            )
        examples, held_out = hold_out(examples, settings.validation_share, config.seed, settings.validation_limit)
    if config.data_weights:
        examples = in_shares(examples, config.datasets, config.data_weights, config.seed)
    if settings.packing:
        width = min(settings.context, planned.context or sys.maxsize)
        augs = planned.aug_contexts
        return pack(examples, width, augs), pack(held_out, width, augs) if held_out is not None else None
    return examples, held_out


def _check_examples(prepared: Prepared) -> None:
    """Raise UserError for token ids that the model does not have, or a curriculum level without examples."""
    base, config = prepared.planned.bases[0], prepared.planned.config
    known, files = text_config(base).vocab_size, (config.datasets, config.validations or config.datasets)
    for names, examples in zip(files, (prepared.examples, prepared.held_out), strict=True):
        if examples is not None and len(examples.ids) and (largest := int(examples.ids.max())) >= known:
            raise UserError(
                f"{', '.join(names)}: token id {largest}, and the {base.model_type} model knows {known}; use its own "
                "tokenizer"
            )
    if config.settings.curriculum.field and prepared.examples is not None:
        Curriculum(config.settings.curriculum, prepared.examples)
