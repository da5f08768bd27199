"""The systems of an experiment: the rows of its tables, and the stages that train and evaluate their models."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmctl.baselines.configs import BaselineConfig
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.config import ExperimentConfig, is_used_as_it_is
from calmctl.experiments.stage import Stage, stage_in
from calmctl.reporting.systems_table import SIZE_GROUPS, system_row
from calmctl.runs.record import METRICS_FILE
from calmctl.training.configs import ComposeConfig, TrainConfig

# Groups of systems that are controls: CALM or an adapter with one change. They have `num_control_seeds` seeds.
CONTROL_GROUPS = ("m_A", "D_C", "share", "connections", "heads", "place", *SIZE_GROUPS)


@dataclass(frozen=True)
class Files:
    """Names of the training and validation files in the data folder; empty = no validation file."""

    anchor: str
    aug: str
    composition: str
    anchor_validation: str = ""
    aug_validation: str = ""
    composition_validation: str = ""


@dataclass(frozen=True)
class Trained:
    """A model of one seed.

    Attributes:
        name: of its folders.
        model: its run directory, or the path or hub id of an existing model that is used without training.
        stages: the stages that train it; empty for an existing model.
        examples: number of worked examples; None = the task's own number.
        reads_answers: whether its prompts contain m_A's answers.
        mixed_with: the model whose probabilities are averaged with its own (see `EvalConfig.mix`).
        dataset: its own test data; empty = those of all other models.
    """

    seed: int
    name: str
    model: str
    stages: tuple[Stage, ...] = ()
    examples: int | None = None
    reads_answers: bool = False
    mixed_with: "Trained | None" = None
    dataset: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of the stages that have to be complete before it can be used."""
        return tuple(stage.name for stage in self.stages[-1:]) + (self.mixed_with.needs if self.mixed_with else ())

    @property
    def is_asked_otherwise(self) -> bool:
        """Return whether it is a model of another system, evaluated in another way without training."""
        return self.reads_answers or self.examples is not None or self.mixed_with is not None


Build = Callable[[str, str, int], Trained]
"""Builds a model from the system's key, the folder's name and the seed."""


@dataclass(frozen=True)
class System:
    """One row of the tables: a model, trained with one seed or several.

    Attributes:
        value: the value of the number that is varied, if the system is CALM with another value of one.
    """

    key: str
    models: tuple[Trained, ...]
    label: str = ""
    value: float | None = None


class Systems(ABC):
    """Builds the systems of an experiment in a folder.

    Args:
        out: folder of the experiment, as an absolute path.
        files: names of the files in the data folder.
        tokenizer: path or hub id of the tokenizer of models trained from scratch.
    """

    def __init__(self, config: ExperimentConfig, out: Path, files: Files, tokenizer: str) -> None:
        self.config, self.out, self.files, self.tokenizer = config, out, files, tokenizer
        self.data = out / "data"
        self.anchor = self._base("anchor", config.anchor, files.anchor, files.anchor_validation)
        self.augs = self._trained_augs()

    @property
    def aug(self) -> Trained:
        """Return m_A; the first one if there are several."""
        return self.augs[0]

    def all(self) -> list[System]:
        """Return every system: m_A, m_B, CALM, then those of `compare`."""
        augs = [System("m_A" if not index else f"m_A{index + 1}", (aug,)) for index, aug in enumerate(self.augs)]
        models = [*augs, System("m_B", (self.anchor,)), self.per_seed("calm", self._composition)]
        return [*models, *map(self._compared, self.config.compare)]

    def _trained_augs(self) -> list[Trained]:
        """Return every m_A of the headline composition."""
        return [self._base("aug", self.config.aug, self.files.aug, self.files.aug_validation)]

    @abstractmethod
    def _compared(self, key: str) -> System:
        """Return the system of a name in `compare`."""

    def evaluations(self, model: Trained) -> Iterator[Stage]:
        """Yield the evaluation stages of a model."""
        for name in self.asked_of(model):
            settings = self.config.evaluations()[name]
            scored = replace(settings, model=model.model, threads=self.config.threads)
            scored, needs = self._asked(model, name, scored)
            folder = f"eval/{name}/{model.name}"
            yield stage_in(self.out, folder, ("eval", scored.task), scored, ("data", *needs), METRICS_FILE)

    def asked_of(self, model: Trained) -> list[str]:
        """Return the names of a model's evaluations."""
        return list(self.config.tasks)

    def _asked(self, model: Trained, name: str, scored: EvalConfig) -> tuple[EvalConfig, tuple[str, ...]]:
        """Return the settings of a model's evaluation, and the stages that it needs."""
        return scored, model.needs

    def _base(self, name: str, train: TrainConfig, file: str, validation: str) -> Trained:
        if is_used_as_it_is(train):
            return Trained(self.config.seed, name, train.base)
        settings = self._on(train, file, validation, self._tokenizer_of(train))
        stage = stage_in(self.out, name, ("train", name), settings, ("data",))
        return Trained(self.config.seed, name, str(stage.folder), (stage,))

    def _tokenizer_of(self, train: TrainConfig) -> str:
        """Return the tokenizer to train a model with; empty for an existing base, which has its own."""
        return "" if train.base else self.tokenizer

    def _on(self, train: TrainConfig, file: str, validation: str, tokenizer: str) -> TrainConfig:
        return replace(
            train, tokenizer=tokenizer, dataset=str(self.data / file), validation=self._held_out(validation, train)
        )

    def _held_out(self, file: str, given: TrainConfig | ComposeConfig | BaselineConfig) -> str | tuple[str, ...]:
        """Return the validation file: the data's own, or if there is none the one in the settings."""
        return str(self.data / file) if file else given.validation

    def per_seed(
        self, key: str, build: Build, label: str = "", value: float | None = None, is_control: bool | None = None
    ) -> System:
        """Return a system that is trained once per seed; None: whether it is a control follows from its group."""
        count = self.config.num_bridge_seeds
        if is_control is None:
            is_control = system_row(key).group in CONTROL_GROUPS
        if is_control:
            count = self.config.num_control_seeds or count
        seeds = range(self.config.seed, self.config.seed + count)
        names = {seed: key if seed == self.config.seed else f"{key}_seed{seed}" for seed in seeds}
        return System(key, tuple(build(key, name, seed) for seed, name in names.items()), label, value)

    def _composition(self, key: str, name: str, seed: int) -> Trained:
        """Return the headline composition, or the variant that `key` names."""
        return self.composed(name, seed, [self.aug])

    def composed(
        self, name: str, seed: int, augs: Sequence[Trained], file: str = "", needs: Sequence[str] = (), **changes: Any
    ) -> Trained:
        """Return a composition of m_B with `augs`.

        Args:
            file: D_C, relative to the data folder or absolute; empty = the headline's.
            needs: names of further stages that have to be complete first.
            changes: settings in which it differs from the headline.
        """
        settings = replace(
            self.config.compose,
            anchor=self.anchor.model,
            augs=tuple(aug.model for aug in augs),
            dataset=str(self.data / (file or self.files.composition)),
            validation=self._held_out(self.files.composition_validation, self.config.compose),
            seed=seed,
        )
        before = dict.fromkeys(("data", *needs, *self.anchor.needs, *(need for aug in augs for need in aug.needs)))
        stage = stage_in(self.out, name, ("compose",), replace(settings, **changes), tuple(before))
        return Trained(seed, name, str(stage.folder), (*(stage for aug in augs for stage in aug.stages), stage))

    def _baseline(self, method: str, name: str, seed: int, file: str = "") -> Trained:
        """Return m_B trained with a baseline method at CALM's size, on D_C or on another file."""
        settings = replace(
            self.config.baseline.for_method(method),
            anchor=self.anchor.model,
            dataset=str(self.data / (file or self.files.composition)),
            validation=self._held_out(self.files.composition_validation, self.config.baseline),
            match=str(self.out / "calm"),
            seed=seed,
        )
        needs = ("data", *self.anchor.needs, "calm")
        stage = stage_in(self.out, name, ("baseline", method), settings, needs)
        return Trained(seed, name, str(stage.folder), (stage,))
