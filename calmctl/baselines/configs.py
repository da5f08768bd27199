"""The configuration of a baseline's training."""

from dataclasses import dataclass, field, replace

from calmctl.baselines.methods import METHODS
from calmctl.baselines.places import WHERE
from calmctl.training.configs import TrainingConfig
from calmctl.training.settings import TrainSettings


@dataclass(frozen=True)
class BaselineConfig(TrainingConfig):
    """Train a baseline: adapters in a frozen anchor, or (`full`) the whole anchor.

    Attributes:
        method: one of `methods.METHODS`.
        anchor: path, run or hub id.
        match: run whose number of trainable parameters is the target (a composition, say); empty = not given.
        parameters: target number of trainable parameters; 0 = not given.
        size: rank, virtual tokens or width of every adapter; 0 = follows from the target.
        where: blocks that get adapters (attention, feed_forward or both); empty = the method's default.
        attention: attention implementation of the anchor; empty = transformers' choice.
        merge: save a plain model with the adapters added to its weights (lora).
        lr_scale: method -> factor on the learning rates; 1 for methods not named.
    """

    method: str = ""
    anchor: str = ""
    match: str = ""
    parameters: int = 0
    size: int = 0
    where: str = ""
    attention: str = ""
    merge: bool = False
    lr_scale: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for settings out of range."""
        super().__post_init__()
        for name in ("parameters", "size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative (0 = not given)")
        if self.where and self.where not in WHERE:
            raise ValueError(f"where={self.where!r} is not one of {', '.join(WHERE)}")
        if unknown := self.lr_scale.keys() - set(METHODS):
            raise ValueError(f"lr_scale.{min(unknown)}: no such method; there are {', '.join(METHODS)}")
        if low := [name for name, scale in self.lr_scale.items() if not 0 < scale < float("inf")]:
            raise ValueError(f"lr_scale.{low[0]}={self.lr_scale[low[0]]} must be a positive number")

    @property
    def settings(self) -> TrainSettings:
        """Return the training settings, with learning rates scaled for the method."""
        scale = self.lr_scale.get(self.method, 1.0)
        return replace(self.train, lr=self.train.lr * scale, adamw_lr=self.train.adamw_lr * scale)
