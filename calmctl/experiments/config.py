"""Settings that all experiments share: data, models, comparisons, evaluations, seeds."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from calmctl.baselines.configs import BaselineConfig
from calmctl.evaluation.config import EvalConfig
from calmctl.schema import meaning
from calmctl.training.configs import ComposeConfig, TrainConfig, check_seed
from data_builders.workers import usable_cores

# Settings of the stages that the experiment fills in itself; users must leave them out.
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
    """Return the field of a list of tasks or comparisons; a run may resume with another list."""
    return field(default=default, metadata=meaning("comparison", may_differ=True))


def evaluation(name: str, task: str = "", options: dict[str, Any] | None = None) -> Any:
    """Return the field of evaluation `name` (default `task`: `name`), which counts only if `tasks` lists it."""
    return field(
        default_factory=lambda: EvalConfig(task=task or name, options=options or {}),
        metadata=meaning("comparison", asked_by=("tasks", name)),
    )


@dataclass(frozen=True)
class ExperimentConfig(ABC):
    """Settings of an experiment: data, m_B and m_A, their composition, comparisons, evaluations.

    Attributes:
        preset: name of the preset, for the report.
        seed: of the data, of m_B and of m_A.
        num_bridge_seeds: number of seeds, from `seed` on, for everything that is trained on D_C.
        num_control_seeds: the same for variants of CALM (`systems.CONTROL_GROUPS`); 0 = `num_bridge_seeds`.
        jobs: stages that run at the same time; 0 = usable cores / `threads`.
        threads: CPU threads of each stage.
        tasks: evaluations to run: names of `evaluations()`.
        compare: systems to evaluate beside m_A, m_B and CALM: names of `COMPARISONS`.
        anchor, aug: training of m_B and m_A. A `base` with `train.steps=0` is used without training.
        compose: the headline composition.
        baseline: training of the methods at CALM's size.
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
        """Set the seed of every stage; raise ValueError for invalid settings and for those of DECIDED_HERE."""
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
        for name in ("anchor", "aug", "compose", "baseline"):
            if getattr(self, name).train.epochs:
                raise ValueError(f"{name}.train.epochs: experiments are planned in steps; set {name}.train.steps=...")

    def _give_one_seed(self) -> None:
        for name in _STAGES:
            stage = getattr(self, name)
            if stage.seed not in (0, self.seed):
                raise ValueError(f"{name}.seed={stage.seed}: every stage takes the experiment's; set seed=... instead")
            object.__setattr__(self, name, replace(stage, seed=self.seed))

    @abstractmethod
    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of every evaluation by name; names start with the name of the task."""

    def existing_models(self) -> list[str]:
        """Return the sources of all models that exist before the experiment."""
        return [base for base in (self.anchor.base, self.aug.base) if base]

    def variants(self, evaluation: EvalConfig) -> list[EvalConfig]:
        """Return an evaluation with all settings that models are asked with."""
        return [evaluation]

    @property
    def stages_at_once(self) -> int:
        """Return `jobs`, or if it is 0 usable cores / `threads`."""
        return self.jobs or max(1, usable_cores() // self.threads)


def is_used_as_it_is(train: TrainConfig) -> bool:
    """Return whether the model is an existing one that is used without training."""
    return bool(train.base) and train.train.steps == 0
