"""The configurations of trainings: of whole models and of compositions."""

from dataclasses import dataclass, field
from typing import Any

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import locate
from calmctl.modeling.options import AugReads, BridgeConfig, SegmentationSetting
from calmctl.schema import check_choices, meaning
from calmctl.training.settings import TrainSettings
from data_builders.row_forms import check_columns
from data_builders.row_sources import check_source


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of every training.

    Attributes:
        dataset: training data, one source or several (see `data_builders.row_sources`); D_C for compositions and
            baselines.
        validation: data like `dataset` to validate on (see `train.eval_every`); empty = none, or a share of the dataset
            (`train.validation_share`).
        columns: our name of a column (`prompt`, `completion`, `text`, `messages`, ...) -> its name in the data.
        data_weights: share of each of several datasets in what is trained on; those too small for it are repeated.
            Empty = every example once per pass.
        init_from: run, model folder, training checkpoint or hub id with whose bridges or adapters the training begins.
        trust_remote_code: run code that comes with a base or tokenizer, if it needs that.
        seed: of initial weights, of what is held out, and of the order of the examples.
    """

    dataset: str | tuple[str, ...] = ""
    validation: str | tuple[str, ...] = ""
    columns: dict[str, str] = field(default_factory=dict)
    data_weights: tuple[float, ...] = ()
    init_from: str = ""
    trust_remote_code: bool = field(default=False, metadata=meaning("free"))
    seed: int = field(default=0, metadata=meaning(may_differ=True))
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        """Raise ValueError or UserError for settings out of range."""
        check_seed(self.seed)
        check_columns(self.columns)
        if self.data_weights and len(self.data_weights) != len(self.datasets):
            raise ValueError(
                f"data_weights={list(self.data_weights)}: {len(self.datasets)} datasets are given; give each one weight"
            )
        if low := [weight for weight in self.data_weights if not 0 < weight < float("inf")]:
            raise ValueError(f"data_weights: {low[0]} must be a positive number")

    @property
    def datasets(self) -> tuple[str, ...]:
        """Return the sources of training data."""
        return _sources(self.dataset)

    @property
    def validations(self) -> tuple[str, ...]:
        """Return the sources of validation data."""
        return _sources(self.validation)

    @property
    def settings(self) -> TrainSettings:
        """Return the training settings."""
        return self.train

    def check_inputs(self) -> None:
        """Check that data and models are given and, if they are local, that they exist.

        Raises:
            UserError: one is missing.
        """
        require(self.datasets, "dataset", "--data FILE")
        for source in filter(None, (*self.sources(), self.init_from)):
            locate(source)
        for name in (*self.datasets, *self.validations):
            check_source(name)

    def sources(self) -> tuple[str, ...]:
        """Return the sources of all models and tokenizers that the training reads."""
        return ()


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Train a model from scratch, or train an existing one further.

    Attributes:
        tokenizer: path or hub id; empty = the base's.
        base: model to train further, a path, run or hub id; empty = from scratch, from `model`.
        model: configuration of a model from scratch: `model_type` and that configuration's own settings; the
            vocabulary and special tokens are the tokenizer's.
    """

    tokenizer: str = ""
    base: str = ""
    model: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise UserError unless exactly one of `base` and `model` is given, and nothing else to begin with."""
        if self.init_from:
            raise UserError(f"init_from={self.init_from}: to train a model further, give --base MODEL instead")
        if bool(self.base) == bool(self.model):
            raise UserError(
                "give --base MODEL with a preset that has no model settings (train further), "
                "or a preset with model settings and no --base (from scratch)"
            )

    def check_inputs(self) -> None:
        """Also raise UserError unless exactly one of `base` and `model` is given."""
        self.check()
        super().check_inputs()

    def sources(self) -> tuple[str, ...]:
        """Return the sources of the base and the tokenizer, if they are given."""
        return tuple(filter(None, (self.base, self.tokenizer)))


@dataclass(frozen=True)
class ComposeConfig(TrainingConfig):
    """Train the bridges between a frozen anchor and frozen augs.

    Attributes:
        anchor, augs: paths, runs or hub ids.
        connections: [[aug_layer, anchor_layer], ...], per aug when there are several; None = every `every`-th layer
            of the aug, or `num` layers.
        every: connect every so many layers of an aug, counted from its last one.
        num: number of connections per aug, evenly spread, instead of `every`.
        aug_reads: `all` tokens, or the `prompt` only (the paper's ablation "m_A as an encoder").
        segmentation: how augs with their own tokenizers cut text: `own`, `chunks`, or `auto` (see `compose`).
        markers: special tokens of the anchor -> the tokens that such augs read in their place.
        random_aug: give the augs untrained weights instead of their own (the paper's ablation "random m_A").
        attention: attention implementation of the bases; empty = transformers' choice.
        merge_bases: save the bases too, which makes the model self-contained.
        self_check: test the model on a few tokens before training; refuse it if that fails (see `check_composition`).
    """

    anchor: str = ""
    augs: tuple[str, ...] = ()
    connections: list[Any] | None = None
    every: int = 4
    num: int | None = None
    aug_reads: AugReads = "all"
    segmentation: SegmentationSetting = "auto"
    markers: dict[str, str] = field(default_factory=dict)
    random_aug: bool = False
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    attention: str = ""
    merge_bases: bool = False
    self_check: bool = field(default=True, metadata=meaning("free"))

    def __post_init__(self) -> None:
        """Raise ValueError for a seed out of range or an unknown choice."""
        super().__post_init__()
        check_choices(self)

    def check_inputs(self) -> None:
        """Also raise UserError unless the anchor and an aug are given."""
        require(self.anchor, "anchor", "--anchor MODEL")
        require(self.augs and all(self.augs), "augs", "--aug MODEL")
        super().check_inputs()

    def sources(self) -> tuple[str, ...]:
        """Return the sources of the anchor and the augs."""
        return (self.anchor, *self.augs)


def _sources(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(None, (given,) if isinstance(given, str) else given))


def check_seed(seed: int) -> None:
    """Raise ValueError unless every seeded library accepts the seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must lie between 0 and {2**32 - 1}")


def require(value: object, name: str, option: str) -> None:
    """Raise UserError unless a setting is given."""
    if not value:
        raise UserError(f"{name} is not set; give {option} or {name}=...")
