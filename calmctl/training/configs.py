"""What a training is told: the configuration of each kind of it."""

from dataclasses import dataclass, field
from typing import Any

from calmctl.errors import UserError
from calmctl.modeling.bridge import BridgeConfig
from calmctl.modeling.configuration import AUG_READS
from calmctl.modeling.tokenizers.segmentation import SEGMENTATION_SETTINGS
from calmctl.schema import meaning
from calmctl.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training is told, whatever it trains.

    Attributes:
        dataset: training file (JSONL or Parquet); of what is composed or compared with a composition D_C.
        validation: file like `dataset` that is not trained on (see `train.eval_every`); empty = none, or a share of the
            dataset (`train.validation_share`).
        trust_remote_code: run the code that lies beside a base or tokenizer, where that needs it.
    """

    dataset: str = ""
    validation: str = ""
    trust_remote_code: bool = field(default=False, metadata=meaning("free"))
    seed: int = field(default=0, metadata=meaning(may_differ=True))
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        """Raise ValueError for a seed out of range."""
        check_seed(self.seed)

    @property
    def settings(self) -> TrainSettings:
        """Return how the model is trained."""
        return self.train


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Train a model from scratch, or an existing one further.

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
        """Raise UserError unless the configuration says of one model how to get it."""
        if bool(self.base) == bool(self.model):
            raise UserError(
                "give --base MODEL with a preset that has no model settings (train further), "
                "or a preset with model settings and no --base (from scratch)"
            )


@dataclass(frozen=True)
class ComposeConfig(TrainingConfig):
    """Train the bridges between a frozen anchor and frozen augs.

    Attributes:
        anchor, augs: paths, runs or hub ids.
        connections: [[aug_layer, anchor_layer], ...], per aug when there are several; None = every `every`-th layer
            of the aug, or `num` layers.
        aug_reads: `all` tokens, or the `prompt` only (the paper's ablation "m_A as an encoder").
        segmentation: how augs with tokenizers of their own cut text: `own`, `chunks`, or `auto` (see `compose`).
        markers: special tokens of the anchor -> those that such augs read in their place.
        random_aug: give the augs untrained weights instead of their own (its ablation "random m_A").
        attention: attention implementation of the bases; empty = transformers' choice.
        merge_bases: write the bases too, which makes the model self-contained.
        self_check: try the pair on a few tokens before it is trained (see `check_composition`); what fails is refused.
    """

    anchor: str = ""
    augs: tuple[str, ...] = ()
    connections: list[Any] | None = None
    every: int = 4
    num: int | None = None
    aug_reads: str = "all"
    segmentation: str = "auto"
    markers: dict[str, str] = field(default_factory=dict)
    random_aug: bool = False
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    attention: str = ""
    merge_bases: bool = False
    self_check: bool = field(default=True, metadata=meaning("free"))

    def __post_init__(self) -> None:
        """Raise ValueError for a seed out of range, and for what is none of the choices."""
        super().__post_init__()
        for name, choices in (("aug_reads", AUG_READS), ("segmentation", SEGMENTATION_SETTINGS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")


def check_seed(seed: int) -> None:
    """Raise ValueError unless every library that is seeded takes the seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must lie between 0 and {2**32 - 1}")
