"""Preflight: what the stages of an experiment would refuse, asked before the first one begins, and by its plan."""

from collections.abc import Callable, Sequence
from typing import Any

from calmctl.baselines.configs import BaselineConfig
from calmctl.experiments.stages import Stage
from calmctl.processes.launch import num_processes
from calmctl.processes.ranks import planned_processes
from calmctl.schema import from_dict
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.session import check_settings
from data_builders.code import build as code
from data_builders.kv import build as kv
from data_builders.ntl import build as ntl

DATA: dict[str, tuple[type[Any], Callable[[Any], None]]] = {
    "kv": (kv.KVDataConfig, kv.check),
    "ntl": (ntl.NTLDataConfig, ntl.check),
    "code": (code.CodeDataConfig, code.check),
}


def check_stages(stages: Sequence[Stage], nproc_per_node: str | None) -> None:
    """Check the settings of every training that is not done, and the sources of the data.

    Raises:
        DataError: the data cannot be built.
        UserError: a training cannot be done here, or not by so many processes.
    """
    with planned_processes(num_processes(nproc_per_node) if nproc_per_node is not None else 1):
        for stage in stages:
            if not stage.is_complete:
                _check(stage)


def _check(stage: Stage) -> None:
    kind, settings = stage.command[0], stage.settings
    if kind == "data":
        data_type, check = DATA[stage.command[1]]
        check(from_dict(data_type, settings))
    elif kind == "baseline":
        baseline = from_dict(BaselineConfig, {**settings, "method": stage.command[1]})
        check_settings(baseline.settings(), is_validated=bool(baseline.validation))
    elif kind in ("train", "compose"):
        config_type: type[TrainConfig | ComposeConfig] = TrainConfig if kind == "train" else ComposeConfig
        training = from_dict(config_type, settings)
        check_settings(training.train, is_validated=bool(training.validation))
