"""The configuration of each command that has presets: where its presets are, and which dataclass they fill."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Configuration:
    """The configuration of a command.

    Attributes:
        group: folder of its presets.
        preset: the preset that it takes unless told otherwise.
        module, name: of its dataclass.
        groups: its groups of settings, for `--help`, which loads no dataclass; a test compares them.
    """

    group: str
    preset: str
    module: str
    name: str
    groups: str = ""

    @property
    def schema(self) -> type:
        """Return the dataclass; imports its module."""
        found: type = getattr(importlib.import_module(self.module), self.name)
        return found


@dataclass(frozen=True)
class ChosenPreset:
    """The preset that a command begins with, or the file of settings in its place.

    Attributes:
        configuration: the command's.
        name: of the preset.
        file: in place of the preset.
        config_dir: folder with presets of the user's own.
    """

    configuration: Configuration
    name: str
    file: Path | None = None
    config_dir: Path | None = None

    @property
    def path(self) -> str:
        """Return group and name."""
        return f"{self.configuration.group}/{self.name}"

    @property
    def label(self) -> str:
        """Return what it is called in plans."""
        return str(self.file or self.name)

    def load(self, overrides: Sequence[str] = (), may_sweep: bool = False) -> Any:
        """Return the settings, an object of the command's dataclass; for arguments and errors see `load_config`."""
        from calmctl.config import load_config

        schema = self.configuration.schema
        return load_config(schema, self.path, overrides, self.config_dir, self.file, may_sweep=may_sweep)


_TRAIN = Configuration("train", "default", "calmctl.training.configs", "TrainConfig", "train")
_MODELS = "anchor, aug, compose, baseline"
# Command -> its configuration, in the order of `calmctl --help`.
CONFIGURATIONS = {
    "data kv": Configuration("data/kv", "tiny", "data_builders.kv.config", "KVDataConfig"),
    "data ntl": Configuration("data/ntl", "tiny", "data_builders.ntl.config", "NTLDataConfig", "aug, anchor"),
    "data code": Configuration("data/code", "tiny", "data_builders.code.config", "CodeDataConfig"),
    "data reasoning": Configuration(
        "data/reasoning", "commonsense", "data_builders.reasoning.config", "ReasoningDataConfig"
    ),
    "train": _TRAIN,
    "train anchor": _TRAIN,
    "train aug": _TRAIN,
    "compose": Configuration("compose", "default", "calmctl.training.configs", "ComposeConfig", "train, bridge"),
    "baseline": Configuration("baseline", "default", "calmctl.baselines.configs", "BaselineConfig", "train"),
    "eval": Configuration("eval", "default", "calmctl.evaluation.config", "EvalConfig", "decoding"),
    "score": Configuration("score", "default", "calmctl.evaluation.scoring", "ScoreConfig"),
    "reproduce kv": Configuration(
        "reproduce/kv", "tiny", "calmctl.experiments.kv_config", "ReproduceKVConfig",
        f"{_MODELS}, data, eval, ablations",
    ),
    "reproduce ntl": Configuration(
        "reproduce/ntl", "tiny", "calmctl.experiments.ntl", "ReproduceNTLConfig",
        f"{_MODELS}, data, flores, flores_unseen, flores_from_english, rows, rows_unseen, mgsm, gsm8k",
    ),
    "reproduce code": Configuration(
        "reproduce/code", "tiny", "calmctl.experiments.code", "ReproduceCodeConfig",
        f"{_MODELS}, data, humaneval, humaneval_plus, mbpp_plus, mbpp, codexglue, text, text_prose, gsm8k",
    ),
    "reproduce adapters": Configuration(
        "reproduce/adapters", "smollm2", "calmctl.experiments.adapter_config", "ReproduceAdaptersConfig",
        f"{_MODELS}, ablations, data, arithmetic, commonsense, commonsense_likelihood",
    ),
    "slurm": Configuration("slurm", "default", "calmctl.processes.slurm", "SlurmConfig"),
}  # fmt: skip


def group_of(preset: str) -> str:
    """Return the folder of a command's presets that a preset, such as `compose/kv/tiny`, is in; itself if in none."""
    groups = (each.group for each in CONFIGURATIONS.values() if preset.startswith(f"{each.group}/"))
    return next(groups, preset.rpartition("/")[0])
