"""What the training of a baseline is told."""

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
        match: run whose number of trainable parameters is wanted, say a composition's; empty = see the next two.
        parameters: trainable parameters to come as near to as possible; 0 = not given.
        size: rank, virtual tokens or width of every adapter; 0 = what follows from the number of parameters.
        where: blocks that get adapters (attention, feed_forward or both); empty = the method's own choice.
        attention: attention implementation of the anchor; empty = transformers' choice.
        merge: write a plain model with the adapters added to its weights (lora).
        lr_scale: by method, what the learning rates are multiplied by; 1 where not named.
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
        """Return how the method is trained: the settings, with learning rates scaled for it."""
        scale = self.lr_scale.get(self.method, 1.0)
        return replace(self.train, lr=self.train.lr * scale, adamw_lr=self.train.adamw_lr * scale)
