"""What the trainings of an experiment come to (parameters, memory, tokens, FLOPs, disk), from its stages' settings."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.baselines.building import sizes_for
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.methods import ADAPTERS, FULL
from calmctl.errors import UserError
from calmctl.experiments.stages import Stage
from calmctl.modeling.bases.public_shapes import Shape, shape_of
from calmctl.modeling.bases.sources import find_tokenizer, without_weights
from calmctl.modeling.composition import check_bases
from calmctl.modeling.configuration import context_length
from calmctl.modeling.tokenizers.own import chosen_kind, own_tokenizer
from calmctl.schema import from_dict
from calmctl.training.checkpoints import KEPT
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.flops import EAGER, FUSED, CompositionFlops, DecoderFlops, adapter_training
from calmctl.training.models import model_config_of_size
from calmctl.training.pairs import measured_aug_tokens
from calmctl.training.plan import BYTES_PER_FLOAT, OPTIMIZER_STATES, bridge_without_weights, flops_of, training_memory
from calmctl.training.settings import TrainSettings


@dataclass(frozen=True)
class Model:
    """A model of the plan, which need not exist.

    Attributes:
        parameters: those of its bases and of what was trained on top.
        weight_bytes: of all that is loaded.
        context: tokens that it can read.
        flops: of a token; those of the anchor for one with adapters.
        empty: a plain model, without weights; None for one that is stored in parts.
        token_ids: how many its tokenizer can produce, where that is known.
        is_public: its shape is that of the table; the model is not here.
    """

    parameters: int
    weight_bytes: int
    context: int
    flops: DecoderFlops | CompositionFlops
    empty: PreTrainedModel | None = None
    token_ids: int | None = None
    is_public: bool = False

    @property
    def plain(self) -> PreTrainedModel:
        """Return the model without weights; raises UserError where it is stored in parts."""
        if self.empty is None:
            raise UserError("a composed or adapted model cannot be trained or composed again; name a plain one")
        return self.empty

    def trained(self) -> "Model":
        """Return it as a training of all its weights leaves it: float32, which it is saved in too."""
        return replace(self, weight_bytes=BYTES_PER_FLOAT * self.parameters, is_public=False)


@dataclass(frozen=True)
class TrainingPlan:
    """A training; sizes in bytes, `tokens` and `flops` of all its steps.

    Attributes:
        what: what is trained, in words.
        memory_bytes: weights, gradients and optimizer; activations come on top.
        disk_bytes: the model and the checkpoints that are kept, at most.
    """

    stage: str
    what: str
    parameters: int
    trainable_parameters: int
    memory_bytes: int
    tokens: int
    flops: float
    disk_bytes: int


@dataclass(frozen=True)
class _Training:
    """A training, before its tokens are counted; `flops` tells those of a token in rows of a length."""

    what: str
    model: Model
    trainable: int
    frozen_bytes: int
    settings: TrainSettings
    flops: Callable[[int], float]


class Planner:
    """Plans stages in their order: what one trains, later ones may build on.

    Args:
        vocab_size: tells the token ids of models that are trained from scratch, by their tokenizer.
    """

    def __init__(self, vocab_size: Callable[[str], int]) -> None:
        self._vocab_size = vocab_size
        self._trained: dict[str, _Training] = {}
        self.existing: dict[str, Model] = {}

    def model(self, source: str) -> Model:
        """Return the model of an earlier stage, or one that exists.

        Raises:
            UserError: its shape is not known here.
        """
        if source in self._trained:
            return self._trained[source].model
        if source not in self.existing:
            self.existing[source] = _model(shape_of(source))
        return self.existing[source]

    def plan(self, stage: Stage) -> TrainingPlan | None:
        """Return the plan of a stage; None for one that trains nothing.

        Raises:
            UserError: the training would refuse its settings, or a shape is not known here.
        """
        kinds = {"train": self._training, "compose": self._composition, "baseline": self._baseline}
        if stage.command[0] not in kinds:
            return None
        training = self._trained[str(stage.folder)] = kinds[stage.command[0]](stage)
        model, settings, trainable = training.model, training.settings, training.trainable
        length = min(settings.context, model.context)
        tokens = settings.steps * (settings.batch_tokens or settings.batch_size * length)
        copies = 1 + (KEPT + settings.keep_best) * (1 + OPTIMIZER_STATES[settings.optimizer])
        return TrainingPlan(
            stage=stage.name,
            what=training.what,
            parameters=model.parameters,
            trainable_parameters=trainable,
            memory_bytes=training.frozen_bytes + training_memory(trainable, trainable, settings),
            tokens=tokens,
            flops=tokens * training.flops(length),
            disk_bytes=BYTES_PER_FLOAT * trainable * copies,
        )

    def _training(self, stage: Stage) -> _Training:
        config = from_dict(TrainConfig, stage.settings)
        config.check()
        if config.base:
            what, model = f"{config.base}, further", self.model(config.base)
        else:
            size = self._vocab_size(config.tokenizer)
            what, model = "from scratch", _model(Shape(model_config_of_size(config.model, size), token_ids=size))
        return _whole(what, model, config.train, str(config.model.get("attn_implementation", "")))

    def _composition(self, stage: Stage) -> _Training:
        config = from_dict(ComposeConfig, stage.settings)
        anchor, *augs = (self.model(source) for source in (config.anchor, *config.augs))
        read = [self._aug_tokens(config, source) for source in config.augs]
        check_bases(anchor.plain, [aug.plain for aug in augs], anchor.token_ids, [each is None for each in read])
        flops = flops_of(config, [anchor.plain, *(aug.plain for aug in augs)])
        flops = replace(flops, aug_tokens=[each or 1.0 for each in read])
        trainable = 0
        for aug, pairs in zip(augs, flops.connections, strict=True):
            bridge = bridge_without_weights(config, anchor.plain.config, aug.plain.config)
            trainable += len(pairs) * sum(parameter.numel() for parameter in bridge.parameters())
        # A random aug is drawn in float32, whatever its own weights are stored in.
        loaded = [aug.trained() if config.random_aug else aug for aug in augs]
        frozen = anchor.weight_bytes + sum(aug.weight_bytes for aug in loaded)
        model = Model(
            parameters=anchor.parameters + sum(aug.parameters for aug in augs) + trainable,
            weight_bytes=frozen + BYTES_PER_FLOAT * trainable,
            context=min(base.context for base in (anchor, *augs)),
            flops=flops,
        )
        what, backward = f"{sum(map(len, flops.connections))} bridges", _backward(config.attention)
        return _Training(what, model, trainable, frozen, config.train, lambda length: flops.training(length, backward))

    def _aug_tokens(self, config: ComposeConfig, source: str) -> float | None:
        """Return how many tokens an aug reads per token of the anchor; None: it takes the anchor's, as far as is known.

        Where tokenizers are not here yet, their numbers of ids tell whether they are two, and one per token is a guess.
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
        """Return the tokenizer of a model that exists and is here, if there is one."""
        if source in self._trained or self.model(source).is_public:
            return None
        return find_tokenizer(source, local_files_only=True)

    def _baseline(self, stage: Stage) -> _Training:
        # The command names the method, not the settings.
        config = from_dict(BaselineConfig, {**stage.settings, "method": stage.command[1]})
        anchor, settings = self.model(config.anchor), config.settings
        if config.method == FULL:
            return _whole("all of m_B", anchor, settings, config.attention)
        method, target = ADAPTERS[config.method], self._trained[config.match].trainable
        sizes = sizes_for(anchor.plain, config.method, target, config.size or None, config.where)
        units = method.units(anchor.plain, config.where or method.where)
        trainable, of_anchor = sum(units[name] * size for name, size in sizes.items()), DecoderFlops(anchor.plain)
        model = Model(
            parameters=anchor.parameters + trainable,
            weight_bytes=anchor.weight_bytes + BYTES_PER_FLOAT * trainable,
            context=anchor.context,
            flops=of_anchor,
        )
        flops = partial(adapter_training, of_anchor, trainable, attention_backward=_backward(config.attention))
        what = f"{method.title}, {method.size} {' to '.join(map(str, sorted({*sizes.values()})))}"
        return _Training(what, model, trainable, anchor.weight_bytes, settings, flops)


def _model(shape: Shape) -> Model:
    empty, dtype = without_weights(shape.config), shape.config.dtype
    parameters = sum(parameter.numel() for parameter in empty.parameters())
    each = dtype.itemsize if isinstance(dtype, torch.dtype) else BYTES_PER_FLOAT
    context = context_length(shape.config) or sys.maxsize
    flops = DecoderFlops(empty)
    return Model(parameters, each * parameters, context, flops, empty, shape.token_ids, shape.is_public)


def _whole(what: str, model: Model, settings: TrainSettings, attention: str) -> _Training:
    """Return the training of all weights of a plain model."""
    flops, backward = DecoderFlops(model.plain), _backward(attention)
    return _Training(
        what, model.trained(), model.parameters, 0, settings, lambda length: flops.training(length, backward)
    )


def _backward(attention: str) -> float:
    return EAGER if attention == "eager" else FUSED
