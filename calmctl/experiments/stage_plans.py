"""What the trainings of an experiment come to (parameters, memory, tokens, FLOPs, disk), from its stages' settings."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from calmctl.baselines.building import sizes_for
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.methods import ADAPTERS, FULL
from calmctl.errors import UserError
from calmctl.experiments.stages import Stage
from calmctl.modeling import layers
from calmctl.modeling.composition import check_bases
from calmctl.modeling.connections import resolve_connections
from calmctl.modeling.public_shapes import Shape, shape_of
from calmctl.modeling.sources import without_weights
from calmctl.schema import from_dict
from calmctl.training.checkpoints import KEPT
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.flops import EAGER, FUSED, CompositionFlops, DecoderFlops, adapter_training
from calmctl.training.jobs import model_config_of_size
from calmctl.training.plan import BYTES_PER_FLOAT, OPTIMIZER_STATES, count_parameters, plan_bridges, training_memory
from calmctl.training.settings import TrainSettings


@dataclass(frozen=True)
class Model:
    """A model of the plan, which need not exist.

    Attributes:
        parameters: those of its bases and of what was trained on top.
        weight_bytes: of all that is loaded.
        context: tokens that it can read.
        flops: of a token; those of the anchor for one with adapters.
        shape: of a plain model; None for one that is stored in parts.
    """

    parameters: int
    weight_bytes: int
    context: int
    flops: DecoderFlops | CompositionFlops
    shape: Shape | None = None


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
        vocab_size: tells the token ids of models that are trained from scratch.
    """

    def __init__(self, vocab_size: Callable[[], int]) -> None:
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
            shape = shape_of(source)
            dtype = shape.config.dtype
            self.existing[source] = _plain(shape, dtype.itemsize if isinstance(dtype, torch.dtype) else BYTES_PER_FLOAT)
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
            what, shape = f"{config.base}, further", _shape(self.model(config.base))
        else:
            what, shape = "from scratch", Shape(model_config_of_size(config.model, self._vocab_size()))
        # What is trained is float32, and so is what it is saved in.
        model = _plain(Shape(shape.config, token_ids=shape.token_ids), BYTES_PER_FLOAT)
        backward = _backward(str(config.model.get("attn_implementation", "")))
        flops = DecoderFlops(shape.config)
        return _Training(what, model, model.parameters, 0, config.train, lambda length: flops.training(length, backward))

    def _composition(self, stage: Stage) -> _Training:
        config = from_dict(ComposeConfig, stage.settings)
        bases = [self.model(source) for source in (config.anchor, *config.augs)]
        anchor, *augs = (_shape(base) for base in bases)
        check_bases(without_weights(anchor.config), [without_weights(aug.config) for aug in augs], anchor.token_ids)
        bridges = plan_bridges(config, anchor.config, [aug.config for aug in augs])["trainable_parameters"]
        connections = resolve_connections(
            config.connections,
            [layers.num_layers(aug.config) for aug in augs],
            layers.num_layers(anchor.config),
            config.every,
            config.num,
        )
        of_anchor, *of_augs = (DecoderFlops(shape.config) for shape in (anchor, *augs))
        flops = CompositionFlops(of_anchor, of_augs, connections, is_folded=not config.bridge.norm)
        frozen = sum(base.weight_bytes for base in bases)
        if config.random_aug:  # drawn in float32, whatever the aug is stored in
            frozen = bases[0].weight_bytes + BYTES_PER_FLOAT * sum(base.parameters for base in bases[1:])
        model = Model(
            sum(base.parameters for base in bases) + bridges,
            frozen + BYTES_PER_FLOAT * bridges,
            min(base.context for base in bases),
            flops,
        )
        count = sum(map(len, connections))
        backward = _backward(config.attention)
        return _Training(
            f"{count} bridges", model, bridges, frozen, config.train, lambda length: flops.training(length, backward)
        )

    def _baseline(self, stage: Stage) -> _Training:
        # The command names the method, not the settings.
        config = from_dict(BaselineConfig, {**stage.settings, "method": stage.command[1]})
        anchor, target = self.model(config.anchor), self._trained[config.match].trainable
        shape, settings, backward = _shape(anchor), config.settings(), _backward(config.attention)
        flops = DecoderFlops(shape.config)
        if config.method == FULL:
            model = _plain(Shape(shape.config, token_ids=shape.token_ids), BYTES_PER_FLOAT)
            whole = model.parameters
            return _Training("all of m_B", model, whole, 0, settings, lambda length: flops.training(length, backward))
        empty, method = without_weights(shape.config), ADAPTERS[config.method]
        sizes = sizes_for(empty, config.method, target, config.size or None, config.where)
        units = method.units(empty, config.where or method.where)
        trainable = sum(units[name] * size for name, size in sizes.items())
        small, large = min(sizes.values()), max(sizes.values())
        what = f"{method.title}, {method.size} {small if small == large else f'{small} to {large}'}"
        model = Model(
            anchor.parameters + trainable, anchor.weight_bytes + BYTES_PER_FLOAT * trainable, anchor.context, flops
        )
        return _Training(
            what,
            model,
            trainable,
            anchor.weight_bytes,
            settings,
            lambda length: adapter_training(flops, trainable, length, backward),
        )


def _plain(shape: Shape, bytes_each: int) -> Model:
    parameters = count_parameters(shape.config)
    context = getattr(layers.text_config(shape.config), "max_position_embeddings", None) or 2**31
    return Model(parameters, parameters * bytes_each, context, DecoderFlops(shape.config), shape)


def _shape(model: Model) -> Shape:
    if model.shape is None:
        raise UserError("a composed or adapted model cannot be trained or composed again; name a plain one")
    return model.shape


def _backward(attention: str) -> float:
    return EAGER if attention == "eager" else FUSED
