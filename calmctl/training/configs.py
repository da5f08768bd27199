"""What a training is told: the configuration of each kind of it."""

from dataclasses import dataclass, field
from typing import Any

from calmctl.errors import UserError
from calmctl.modeling.bridge import BridgeConfig
from calmctl.modeling.configuration import AUG_READS
from calmctl.modeling.tokenizers.segmentation import SEGMENTATION_SETTINGS
from calmctl.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainConfig:
    """Train a model from scratch, or an existing one further.

    Attributes:
        dataset: training file (JSONL or Parquet).
        tokenizer: path or hub id; empty = the base's.
        base: model to train further, a path, run or hub id; empty = from scratch, from `model`.
        model: configuration of a model from scratch: `model_type` and that configuration's own settings; the
            vocabulary and special tokens are the tokenizer's.
        validation: file like `dataset` that is not trained on (see `train.eval_every`); empty = none, or a share of the
            dataset (`train.validation_share`).
        trust_remote_code: run the code that lies beside a base or tokenizer, where that needs it.
    """

    dataset: str = ""
    tokenizer: str = ""
    base: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    validation: str = ""
    trust_remote_code: bool = False
    seed: int = 0
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        """Raise ValueError for a seed out of range."""
        check_seed(self.seed)

    def check(self) -> None:
        """Raise UserError unless the configuration says of one model how to get it."""
        if bool(self.base) == bool(self.model):
            raise UserError(
                "give --base MODEL with a preset that has no model settings (train further), "
                "or a preset with model settings and no --base (from scratch)"
            )


@dataclass(frozen=True)
class ComposeConfig:
    """Train the bridges between a frozen anchor and frozen augs.

    Attributes:
        anchor, augs: paths, runs or hub ids.
        dataset: D_C, the composition data (JSONL or Parquet).
        connections: [[aug_layer, anchor_layer], ...], per aug when there are several; None = every `every`-th layer
            of the aug, or `num` layers.
        aug_reads: `all` tokens, or the `prompt` only (the paper's ablation "m_A as an encoder").
        segmentation: how augs with tokenizers of their own cut text: `own`, `chunks`, or `auto` (see `compose`).
        markers: special tokens of the anchor -> those that such augs read in their place.
        random_aug: give the augs untrained weights instead of their own (its ablation "random m_A").
        attention: attention implementation of the bases; empty = transformers' choice.
        merge_bases: write the bases too, which makes the model self-contained.
        validation: file like `dataset` that is not trained on (see `train.eval_every`); empty = none, or a share of the
            dataset (`train.validation_share`).
        self_check: try the pair on a few tokens before it is trained (see `check_composition`); what fails is refused.
        trust_remote_code: run the code that lies beside a base, where that needs it.
    """

    anchor: str = ""
    augs: tuple[str, ...] = ()
    dataset: str = ""
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
    validation: str = ""
    self_check: bool = True
    trust_remote_code: bool = False
    seed: int = 0
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        """Raise ValueError for a seed out of range, and for what is none of the choices."""
        check_seed(self.seed)
        for name, choices in (("aug_reads", AUG_READS), ("segmentation", SEGMENTATION_SETTINGS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")


def check_seed(seed: int) -> None:
    """Raise ValueError unless every library that is seeded takes the seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must lie between 0 and {2**32 - 1}")
