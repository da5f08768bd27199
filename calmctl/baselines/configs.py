"""The configuration of a baseline's training."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from calmctl.baselines.options import METHODS, AdapterOptions
from calmctl.errors import UserError
from calmctl.runs.record import read_run
from calmctl.training.configs import TrainingConfig, require
from calmctl.training.settings import TrainSettings


@dataclass(frozen=True)
class BaselineConfig(AdapterOptions, TrainingConfig):
    """Train a baseline: adapters in a frozen anchor, or (`full`) the whole anchor.

    Attributes (those of `AdapterOptions` and `TrainingConfig` besides):
        method: `lora`, `prefix`, `prompt`, `p_tuning`, `series`, `parallel` or `full` (the argument METHOD).
        anchor: path, run or hub id.
        match: run whose number of trainable parameters is the target (a composition, say); empty = not given.
        parameters: target number of trainable parameters; 0 = not given.
        size: rank, virtual tokens or width of every adapter; 0 = follows from the target.
        attention: attention implementation of the anchor; empty = transformers' choice.
        merge: save a plain model with the adapters added to its weights (lora).
        lr_scale: method -> factor on the learning rates; 1 for methods not named.
    """

    method: str = ""
    anchor: str = ""
    match: str = ""
    parameters: int = 0
    size: int = 0
    attention: str = ""
    merge: bool = False
    lr_scale: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for settings out of range."""
        TrainingConfig.__post_init__(self)
        AdapterOptions.__post_init__(self)
        for name in ("parameters", "size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative (0 = not given)")
        if unknown := self.lr_scale.keys() - set(METHODS):
            raise ValueError(f"lr_scale.{min(unknown)}: no such method; there are {', '.join(METHODS)}")
        if low := [name for name, scale in self.lr_scale.items() if not 0 < scale < float("inf")]:
            raise ValueError(f"lr_scale.{low[0]}={self.lr_scale[low[0]]} must be a positive number")

    def check_inputs(self) -> None:
        """Also raise UserError unless the anchor and a known method are given, or if there is no run to match."""
        if self.method not in METHODS:
            raise UserError(f"method={self.method!r} is not one of {', '.join(METHODS)}")
        require(self.anchor, "anchor", "--anchor MODEL")
        if self.match:
            read_run(Path(self.match))
        super().check_inputs()

    def sources(self) -> tuple[str, ...]:
        """Return the source of the anchor."""
        return (self.anchor,)

    def for_method(self, method: str) -> "BaselineConfig":
        """Return the settings for another method: without options that it does not have.

        For experiments, which train several methods with one set of options.
        """
        from calmctl.baselines.methods import ADAPTERS

        takes = (*ADAPTERS[method].takes, "where") if method in ADAPTERS else ()
        others = {each.name: each.default for each in fields(AdapterOptions) if each.name not in takes}
        return replace(self, method=method, **others)  # type: ignore[arg-type]

    @property
    def options(self) -> AdapterOptions:
        """Return the options of the method."""
        return AdapterOptions(**{each.name: getattr(self, each.name) for each in fields(AdapterOptions)})

    @property
    def settings(self) -> TrainSettings:
        """Return the training settings, with learning rates scaled for the method."""
        scale = self.lr_scale.get(self.method, 1.0)
        return replace(self.train, lr=self.train.lr * scale, adamw_lr=self.train.adamw_lr * scale)
