"""What the settings of all experiments share: models, data, what a composition is compared with, seeds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from calmctl.baselines.configs import BaselineConfig
from calmctl.environment import usable_cores
from calmctl.evaluation.config import EvalConfig
from calmctl.schema import meaning
from calmctl.training.configs import ComposeConfig, TrainConfig, check_seed

# Settings of the stages' configurations that follow from where the experiment puts things.
DECIDED_HERE = (
    "anchor.dataset", "anchor.tokenizer", "aug.dataset", "aug.tokenizer", "compose.dataset", "compose.anchor",
    "compose.augs", "compose.random_aug", "baseline.method", "baseline.anchor", "baseline.dataset", "baseline.match",
    "baseline.parameters", "baseline.size", "baseline.merge",
)  # fmt: skip
_STAGES = ("data", "anchor", "aug", "compose", "baseline")
_LEAST = {
    "jobs": 0, "threads": 1, "num_bridge_seeds": 1, "num_control_seeds": 0, "control_steps": 0, "num_examples": 1,
    "untrained_limit": 0,
}  # fmt: skip


def chosen(*default: str) -> Any:
    """Return the field of a setting that names what is asked or compared: a run may go on with others."""
    return field(default=default, metadata=meaning("comparison", may_differ=True))


def evaluation(name: str, task: str = "", options: dict[str, Any] | None = None) -> Any:
    """Return the field of an evaluation, by which figures are compared where `tasks` names it; `task` if not `name`."""
    return field(
        default_factory=lambda: EvalConfig(task=task or name, options=options or {}),
        metadata=meaning("comparison", asked_by=("tasks", name)),
    )


@dataclass(frozen=True)
class ExperimentConfig(ABC):
    """An experiment of the paper: data, m_B and m_A, their composition, what it is compared with, evaluations.

    Attributes:
        preset: name of the preset, for the report.
        seed: of the data, of m_B and of m_A.
        num_bridge_seeds: how often everything that is trained on D_C is trained, with seeds from `seed` on.
        num_control_seeds: seeds of the controls (random or vanilla m_A, other D_C); 0 = as many as of everything else.
        jobs: stages at once; 0 = as many as there are cores for their threads.
        threads: CPU threads of each stage.
        tasks: what is evaluated: names of `evaluations()`.
        compare: what is measured beside m_A, m_B and CALM: names of `COMPARISONS`.
        anchor, aug: how m_B and m_A are trained. With a `base` and `train.steps=0` the base is used as it is.
        compose: the headline composition.
        baseline: how the methods at CALM's size are trained.
    """

    COMPARISONS: ClassVar[tuple[str, ...]] = ()
    DECIDED_HERE: ClassVar[tuple[str, ...]] = DECIDED_HERE

    preset: str = ""
    seed: int = field(default=0, metadata=meaning(may_differ=True))
    num_bridge_seeds: int = field(default=1, metadata=meaning("comparison", may_differ=True))
    num_control_seeds: int = field(default=0, metadata=meaning("comparison", may_differ=True))
    jobs: int = field(default=0, metadata=meaning("free"))
    threads: int = field(default=1, metadata=meaning(may_differ=True))
    tasks: tuple[str, ...] = chosen()
    compare: tuple[str, ...] = chosen("random_aug", "lora")
    anchor: TrainConfig = field(default_factory=TrainConfig)
    aug: TrainConfig = field(default_factory=TrainConfig)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)

    def __post_init__(self) -> None:
        """Give every stage the one seed; raise ValueError for settings that do not fit, or are the experiment's own."""
        check_seed(self.seed)
        for name, smallest in _LEAST.items():
            if (value := getattr(self, name, smallest)) < smallest:
                raise ValueError(f"{name}={value} must be at least {smallest}")
        for name, choices in (("compare", self.COMPARISONS), ("tasks", tuple(self.evaluations()))):
            values = getattr(self, name)
            if unknown := [value for value in values if value not in choices]:
                raise ValueError(f"{name}: {unknown[0]!r} is not one of {', '.join(choices)}")
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{name}={list(values)} names {twice[0]} twice")
        for name, settings in self.evaluations().items():
            if not name.startswith(settings.task):  # flores_from_english is flores in the other direction
                raise ValueError(f"{name}.task={settings.task}: it cannot be another task than its name says")
        self._refuse_decided()
        self._give_one_seed()

    def _refuse_decided(self) -> None:
        for path in self.DECIDED_HERE:
            stage, setting = path.split(".")
            if value := getattr(getattr(self, stage), setting):
                raise ValueError(f"{path}={value}: the experiment decides that; leave it out")

    def _give_one_seed(self) -> None:
        for name in _STAGES:
            stage = getattr(self, name)
            if stage.seed not in (0, self.seed):
                raise ValueError(f"{name}.seed={stage.seed}: every stage takes the experiment's; set seed=... instead")
            object.__setattr__(self, name, replace(stage, seed=self.seed))

    @abstractmethod
    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of every evaluation by its name, which begins with that of its task."""

    @property
    def stages_at_once(self) -> int:
        """Return `jobs`, or how many stages the cores of this machine have room for."""
        return self.jobs or max(1, usable_cores() // self.threads)


def is_used_as_it_is(train: TrainConfig) -> bool:
    """Tell whether a model is an existing one that is not trained."""
    return bool(train.base) and train.train.steps == 0
