"""Preflight: what the stages of an experiment would refuse, asked before the first one begins, and by its plan."""

from collections.abc import Callable, Sequence
from typing import Any

from calmctl.baselines.configs import BaselineConfig
from calmctl.experiments.stages import Stage
from calmctl.processes.launch import num_processes
from calmctl.processes.ranks import planned_processes
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.session import check_settings
from data_builders.code import build as code
from data_builders.kv import build as kv
from data_builders.ntl import build as ntl

DATA: dict[str, Callable[[Any], None]] = {"kv": kv.check, "ntl": ntl.check, "code": code.check}


def check_stages(stages: Sequence[Stage], nproc_per_node: str | None) -> None:
    """Check the settings of every training that is not done, and the sources of the data.

    Raises:
        UserError: the data cannot be built.
        UserError: a training cannot be done here, or not by so many processes.
    """
    with planned_processes(num_processes(nproc_per_node) if nproc_per_node is not None else 1):
        for stage in stages:
            if not stage.is_complete:
                _check(stage)


def _check(stage: Stage) -> None:
    config = stage.config
    if stage.command[0] == "data":
        DATA[stage.command[1]](config)
    elif isinstance(config, TrainConfig | ComposeConfig | BaselineConfig):
        check_settings(config.settings, is_validated=bool(config.validation))
