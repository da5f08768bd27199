"""Rules that the settings of every experiment follow: one seed for all stages, and nothing that it decides itself."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

STAGES = ("data", "anchor", "aug", "compose", "baseline")


def give_one_seed(config: Any) -> None:
    """Give every stage the seed of the experiment, a frozen dataclass that is being made.

    Raises:
        ValueError: a stage has been given another one.
    """
    for name in STAGES:
        stage = getattr(config, name)
        if stage.seed not in (0, config.seed):
            raise ValueError(f"{name}.seed={stage.seed}: every stage takes the experiment's; set seed=... instead")
        object.__setattr__(config, name, replace(stage, seed=config.seed))


def refuse_decided(config: Any, paths: Sequence[str]) -> None:
    """Raise ValueError where one of the settings `stage.setting` is given, which the experiment decides."""
    for path in paths:
        stage, setting = path.split(".")
        if value := getattr(getattr(config, stage), setting):
            raise ValueError(f"{path}={value}: the experiment decides that; leave it out")
