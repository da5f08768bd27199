"""The settings that the sections of the paper on real text share: models, what they are compared with, seeds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.methods import METHODS
from calmctl.environment import usable_cores
from calmctl.evaluation.evaluating import EvalConfig
from calmctl.experiments.shared_settings import give_one_seed, refuse_decided
from calmctl.schema import meaning
from calmctl.training.configs import ComposeConfig, TrainConfig, check_seed

ABLATIONS = ("random_aug", "vanilla_aug", "aug_as_encoder")
WITH_EXAMPLES = ("m_A_examples", "m_B_examples")
UNTRAINED = (*WITH_EXAMPLES, "handover", "mixture")
SKYLINE = "m_B_finetuned"
COMPARISONS = (*ABLATIONS, *METHODS, *UNTRAINED, SKYLINE)

# Settings of the stages' configurations that follow from where the experiment puts things.
_DECIDED_HERE = (
    "anchor.dataset", "anchor.validation", "anchor.tokenizer", "aug.dataset", "aug.validation", "aug.tokenizer",
    "compose.dataset", "compose.validation", "compose.anchor", "compose.augs", "compose.random_aug", "baseline.method",
    "baseline.anchor", "baseline.dataset", "baseline.validation", "baseline.match", "baseline.parameters",
    "baseline.size", "baseline.merge",
)  # fmt: skip

_LEAST = {
    "jobs": 0, "threads": 1, "num_bridge_seeds": 1, "num_control_seeds": 0, "num_examples": 1, "untrained_limit": 0,
}  # fmt: skip


@dataclass(frozen=True)
class SectionConfig(ABC):
    """A section of the paper: data, m_B and m_A, their composition, what it is compared with, evaluations.

    Attributes:
        preset: name of the preset, for the report.
        seed: of the data, of m_B and of m_A.
        num_bridge_seeds: how often everything that is trained on D_C is trained, with seeds from `seed` on.
        num_control_seeds: the same of what says what m_A is for (`random_aug`, `vanilla_aug`, `aug_as_encoder`); 0 = as
            often as everything else.
        jobs: stages at once; 0 = as many as there are cores for their threads.
        threads: CPU threads of each stage.
        benchmarks: folder that holds the data of each task (`--data`).
        tasks: what is evaluated: names of `evaluations()`.
        compare: beside m_A, m_B and CALM: `random_aug`, `vanilla_aug` and `aug_as_encoder` (what m_A is), `lora`,
            `prefix`, `series`, `parallel` and `full` (trained on D_C at CALM's size), `m_B_finetuned` (m_B trained
            further on m_A's data, as m_A was: the paper's skyline); and without training `m_A_examples` and
            `m_B_examples` (the models with `num_examples` worked examples), `handover` (m_B reads m_A's answer) and
            `mixture` (m_B and m_A decide about every byte together).
        num_examples: worked examples of these, in tasks that have any.
        untrained_limit: how many records of each task (of each language) these are asked, as they read more and write
            slower; 0 = as many as the others.
        vanilla_aug: m_A as it was before it learned its domain, where that does not follow from `aug`.
        anchor, aug: how m_B and m_A are trained. With a `base` and `train.steps=0` the base is used as it is.
        compose: the headline composition.
        baseline: how the methods at CALM's size are trained.
    """

    preset: str = ""
    seed: int = 0
    num_bridge_seeds: int = 1
    num_control_seeds: int = 0
    jobs: int = field(default=0, metadata=meaning("free"))
    threads: int = 1
    benchmarks: str = ""
    tasks: tuple[str, ...] = ()
    compare: tuple[str, ...] = ("random_aug", "lora")
    num_examples: int = 5
    untrained_limit: int = 0
    vanilla_aug: str = ""
    anchor: TrainConfig = field(default_factory=TrainConfig)
    aug: TrainConfig = field(default_factory=TrainConfig)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)

    def __post_init__(self) -> None:
        """Give every stage the one seed; raise ValueError for settings that do not fit, or are the experiment's own."""
        check_seed(self.seed)
        for name, smallest in _LEAST.items():
            if (value := getattr(self, name)) < smallest:
                raise ValueError(f"{name}={value} must be at least {smallest}")
        for name, choices in (("compare", COMPARISONS), ("tasks", tuple(self.evaluations()))):
            values = getattr(self, name)
            if unknown := [value for value in values if value not in choices]:
                raise ValueError(f"{name}: {unknown[0]!r} is not one of {', '.join(choices)}")
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{name}={list(values)} names {twice[0]} twice")
        for name, settings in self.evaluations().items():
            if not name.startswith(settings.task):  # flores_from_english is flores in the other direction
                raise ValueError(f"{name}.task={settings.task}: it cannot be another task than its name says")
        refuse_decided(self, _DECIDED_HERE)
        give_one_seed(self)
        if "vanilla_aug" in self.compare and not self.vanilla_aug and is_used_as_it_is(self.aug):
            raise ValueError("compare names vanilla_aug: set vanilla_aug=MODEL, what m_A was before it was specialised")
        if SKYLINE in self.compare and is_used_as_it_is(self.aug):
            raise ValueError(f"compare names {SKYLINE}, which is trained as m_A is, and m_A is not; leave it out")
        if "aug_as_encoder" in self.compare and not self.has_prompts:
            raise ValueError("compare names aug_as_encoder, which reads prompts, and D_C has none; leave it out")

    @abstractmethod
    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of every evaluation of the section by its name, which begins with that of its task."""

    @property
    def changeable(self) -> tuple[str, ...]:
        """Return the settings that say what is compared and measured: a run may go on with more or others of them."""
        seeds = ("num_bridge_seeds", "num_control_seeds")
        return (*seeds, "compare", "num_examples", "untrained_limit", "vanilla_aug", "tasks", *self.evaluations())

    @property
    @abstractmethod
    def has_prompts(self) -> bool:
        """Return whether the rows of D_C are prompts and completions."""

    def completed(self, data: object, evaluations: Mapping[str, EvalConfig]) -> Self:
        """Return the configuration with other settings of its data and of some of its tasks."""
        changes: dict[str, Any] = {"data": data, **evaluations}
        return replace(self, **changes)

    @property
    def stages_at_once(self) -> int:
        """Return `jobs`, or how many stages the cores of this machine have room for."""
        return self.jobs or max(1, usable_cores() // self.threads)


def is_used_as_it_is(train: TrainConfig) -> bool:
    """Tell whether a model is an existing one that is not trained."""
    return bool(train.base) and train.train.steps == 0
