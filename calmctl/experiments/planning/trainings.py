"""Estimate parameters, memory, tokens, FLOPs and disk of an experiment's trainings, from the settings of its stages."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.training import plan_baseline
from calmctl.experiments.stage import Stage
from calmctl.modeling.bases.public_shapes import Shape, shape_of
from calmctl.modeling.bases.sources import find_tokenizer
from calmctl.modeling.composition import check_bases
from calmctl.modeling.tokenizers.own import chosen_kind, own_tokenizer
from calmctl.training.checkpoints import KEPT
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.pairs import measured_aug_tokens
from calmctl.training.plan import (
    BYTES_PER_FLOAT,
    OPTIMIZER_STATES,
    Plan,
    PlannedModel,
    model_of,
    plan_composition,
    plan_training,
)
from calmctl.training.whole_models import model_config_of_size


@dataclass(frozen=True)
class TrainingPlan:
    """The cost of a training; `tokens` and `flops` are totals over all steps.

    Attributes:
        what: what is trained, in words.
        memory_bytes: of weights, gradients and optimizer states; without activations.
        disk_bytes: maximum size of the model and the checkpoints that are kept.
    """

    stage: str
    what: str
    parameters: int
    trainable_parameters: int
    memory_bytes: int
    tokens: int
    flops: float
    disk_bytes: int


class Planner:
    """Plans stages in order, since later stages may use the models of earlier ones.

    Args:
        vocab_size: tokenizer -> number of token ids of a model trained from scratch with it.
    """

    def __init__(self, vocab_size: Callable[[str], int]) -> None:
        self._vocab_size = vocab_size
        self._trained: dict[str, Plan] = {}
        # Stages that train a model further, with its tokenizer -> that model.
        self._bases: dict[str, str] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase | None] = {}
        self._known_aug_tokens: dict[tuple[object, ...], float | None] = {}
        self.existing: dict[str, PlannedModel] = {}

    def model(self, source: str) -> PlannedModel:
        """Return the model that an earlier stage trains, or an existing one.

        Raises:
            UserError: the model is neither on disk nor in `public_shapes`.
        """
        if source in self._trained:
            return self._trained[source].model
        if source not in self.existing:
            self.existing[source] = model_of(shape_of(source))
        return self.existing[source]

    def plan(self, stage: Stage) -> TrainingPlan | None:
        """Return the plan of a stage; None for one that trains nothing.

        Raises:
            UserError: the training would reject its settings, or a model is neither on disk nor in `public_shapes`.
        """
        if (plan := self._plan(stage.config)) is None:
            return None
        self._trained[str(stage.folder)] = plan
        if isinstance(stage.config, TrainConfig) and stage.config.base and not stage.config.tokenizer:
            self._bases[str(stage.folder)] = stage.config.base
        settings, length = plan.settings, min(plan.settings.context, plan.model.context)
        tokens = settings.steps * (settings.batch_tokens or settings.batch_size * length)
        copies = 1 + (KEPT + settings.keep_best) * (1 + OPTIMIZER_STATES[settings.optimizer])
        return TrainingPlan(
            stage=stage.name,
            what=plan.what,
            parameters=plan.model.parameters,
            trainable_parameters=plan.trainable,
            memory_bytes=plan.memory_bytes,
            tokens=tokens,
            flops=tokens * plan.flops(length),
            disk_bytes=BYTES_PER_FLOAT * plan.trainable * copies,
        )

    def _plan(self, config: object) -> Plan | None:
        if isinstance(config, TrainConfig):
            config.check()
            if config.base:
                return plan_training(config, self.model(config.base))
            size = self._vocab_size(config.tokenizer)
            return plan_training(config, model_of(Shape(model_config_of_size(config.model, size), token_ids=size)))
        if isinstance(config, ComposeConfig):
            anchor, *augs = (self.model(source) for source in (config.anchor, *config.augs))
            read = [self._aug_tokens(config, source) for source in config.augs]
            check_bases(anchor.plain, [aug.plain for aug in augs], anchor.token_ids, [each is None for each in read])
            return plan_composition(config, anchor, augs, [each or 1.0 for each in read])
        if isinstance(config, BaselineConfig):
            target = self._trained[config.match].trainable if config.match else None
            return plan_baseline(config, self.model(config.anchor), target)
        return None

    def _aug_tokens(self, config: ComposeConfig, source: str) -> float | None:
        """Return `_found_aug_tokens`, once for all systems with the same models."""
        key = (config.anchor, source, config.segmentation, *sorted(config.markers.items()))
        if key not in self._known_aug_tokens:
            self._known_aug_tokens[key] = self._found_aug_tokens(config, source)
        return self._known_aug_tokens[key]

    def _found_aug_tokens(self, config: ComposeConfig, source: str) -> float | None:
        """Return how many tokens an aug reads per token of the anchor; None = it reads the anchor's tokens.

        If a tokenizer is not on disk: None if their numbers of ids are equal or unknown, otherwise 1.0, a guess.
        """
        anchor, aug = self.model(config.anchor), self.model(source)
        ours, theirs = (self._tokenizer(each) for each in (config.anchor, source))
        if ours is None or theirs is None:
            is_shared = None in (aug.token_ids, anchor.token_ids) or aug.token_ids == anchor.token_ids
            return None if is_shared else 1.0
        own = own_tokenizer(ours, theirs, config.markers)
        if own is None:
            return None
        return measured_aug_tokens(ours, own.segmenter(chosen_kind(config.segmentation, aug.plain, own)))

    def _tokenizer(self, source: str) -> PreTrainedTokenizerBase | None:
        """Return the tokenizer of a model that is on this machine, or trained further from one; otherwise None."""
        if source in self._bases:
            return self._tokenizer(self._bases[source])
        if source in self._trained or self.model(source).is_public:
            return None
        if source not in self._tokenizers:
            self._tokenizers[source] = find_tokenizer(source, local_files_only=True)
        return self._tokenizers[source]
