"""What the experiments on real text share: their settings, and the systems that they compare."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from calmctl.baselines.methods import METHODS
from calmctl.evaluation.config import EvalConfig
from calmctl.evaluation.tasks import find_data, has_option
from calmctl.experiments.config import DECIDED_HERE, ExperimentConfig, is_used_as_it_is
from calmctl.experiments.stages import stage_in
from calmctl.experiments.systems import System, Systems, Trained
from calmctl.reporting.systems_table import system_row
from calmctl.schema import meaning
from calmctl.training.configs import TrainConfig

ABLATIONS = ("random_aug", "vanilla_aug", "aug_as_encoder")
EXAMPLES = "m_A_examples"
WITH_EXAMPLES = (EXAMPLES, "m_B_examples")
UNTRAINED = (*WITH_EXAMPLES, "handover", "mixture")
SKYLINE = "m_B_finetuned"
VANILLA_STAGE = "aug_vanilla"
# Evaluations in which a model writes nothing.
SILENT = ("text",)


@dataclass(frozen=True)
class RealTextConfig(ExperimentConfig):
    """An experiment on real text: its data, its benchmarks, and comparisons that need no training.

    `compare` names `random_aug`, `vanilla_aug` and `aug_as_encoder` (what m_A is), methods of `METHODS` (trained on D_C
    at CALM's size), `m_B_finetuned` (m_B trained further on m_A's data, as m_A was: the paper's skyline); and without
    training `m_A_examples` and `m_B_examples` (the models with `num_examples` worked examples), `handover` (m_B reads
    m_A's answer) and `mixture` (m_B and m_A decide about every byte together).

    Attributes:
        benchmarks: folder that holds the data of each task (`--data`).
        num_examples: worked examples of those, in tasks that have any.
        untrained_limit: how many records of each task (of each language) they are asked, as they read more and write
            slower; 0 = as many as the others.
        vanilla_aug: m_A as it was before it learned its domain, where that does not follow from `aug`.
    """

    COMPARISONS: ClassVar[tuple[str, ...]] = (*ABLATIONS, *METHODS, *UNTRAINED, SKYLINE)
    DECIDED_HERE: ClassVar[tuple[str, ...]] = (
        *DECIDED_HERE,
        *(f"{stage}.validation" for stage in ("anchor", "aug", "compose", "baseline")),
    )

    benchmarks: str = field(default="", metadata=meaning(may_differ=True))
    num_examples: int = field(default=5, metadata=meaning("comparison"))
    untrained_limit: int = field(default=0, metadata=meaning("comparison"))
    vanilla_aug: str = field(default="", metadata=meaning("comparison", asked_by=("compare", "vanilla_aug")))

    def __post_init__(self) -> None:
        """Also raise ValueError where a comparison cannot be made."""
        super().__post_init__()
        if "vanilla_aug" in self.compare and not self.vanilla_aug and is_used_as_it_is(self.aug):
            raise ValueError("compare names vanilla_aug: set vanilla_aug=MODEL, what m_A was before it was specialised")
        if SKYLINE in self.compare and is_used_as_it_is(self.aug):
            raise ValueError(f"compare names {SKYLINE}, which is trained as m_A is, and m_A is not; leave it out")
        if "aug_as_encoder" in self.compare and not self.has_prompts:
            raise ValueError("compare names aug_as_encoder, which reads prompts, and D_C has none; leave it out")

    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of every evaluation: fields of its name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, EvalConfig)}

    @property
    @abstractmethod
    def has_prompts(self) -> bool:
        """Return whether the rows of D_C are prompts and completions."""

    def completed(self, data: object, evaluations: Mapping[str, EvalConfig]) -> Self:
        """Return the configuration with other settings of its data and of some of its tasks."""
        changes: dict[str, Any] = {"data": data, **evaluations}
        return replace(self, **changes)


class RealTextSystems(Systems):
    """Builds the systems of an experiment on real text in a folder."""

    config: RealTextConfig

    def _compared(self, key: str) -> System:
        if key in METHODS:
            return self.per_seed(key, self._baseline)
        if key in UNTRAINED:
            return self._asked_otherwise(key)
        if key == SKYLINE:
            return System(key, (self._further(),))
        return self.per_seed(key, self._composition)

    def _composition(self, key: str, name: str, seed: int) -> Trained:
        changes: dict[str, dict[str, Any]] = {
            "random_aug": {"random_aug": True},
            "aug_as_encoder": {"aug_reads": "prompt"},
        }
        aug = self._vanilla() if key == "vanilla_aug" else self.aug
        return self.composed(name, seed, [aug], **changes.get(key, {}))

    def asked_of(self, model: Trained) -> list[str]:
        """Return which evaluations a model takes part in: with worked examples those that have any.

        Windows of long texts take a mixture too long: it reads them byte by byte.
        """
        tasks = {name: self.config.evaluations()[name].task for name in self.config.tasks}
        if model.examples is not None:
            return [name for name, task in tasks.items() if has_option(task, "shots")]
        is_asked_to_write = model.reads_answers or model.mixed_with is not None
        return [name for name, task in tasks.items() if not (is_asked_to_write and task in SILENT)]

    def _asked(self, model: Trained, name: str, scored: EvalConfig) -> tuple[EvalConfig, tuple[str, ...]]:
        needs = model.needs
        if model.is_asked_otherwise and (limit := self.config.untrained_limit):
            scored = replace(scored, limit=min(limit, scored.limit or limit))
        if model.examples is not None:
            scored = replace(scored, options={**scored.options, "shots": model.examples})
        if model.reads_answers:
            read = f"eval/{name}/{self._answering(scored.task)}"
            scored, needs = replace(scored, handover=str(self.out / read)), (*needs, read)
        if model.mixed_with:
            scored = replace(scored, mix=model.mixed_with.model)
        return scored, needs

    def _vanilla(self) -> Trained:
        """Return m_A as it was before its domain: its base, or, from scratch, trained on the anchor's data."""
        config = self.config
        if existing := config.vanilla_aug or config.aug.base:
            return Trained(config.seed, "vanilla", existing)
        settings = self._on(config.aug, self.files.anchor, self.files.anchor_validation, self.tokenizer)
        stage = stage_in(self.out, VANILLA_STAGE, ("train", "aug"), settings, ("data",))
        return Trained(config.seed, VANILLA_STAGE, str(stage.folder), (stage,))

    def _asked_otherwise(self, key: str) -> System:
        count, limit = self.config.num_examples, self.config.untrained_limit
        label = system_row(key).label.format(f"{count} worked example{'s' if count != 1 else ''}")
        label += f", first {limit} records at most" if limit else ""
        return System(key, (self._untrained(key),), label)

    def _untrained(self, key: str) -> Trained:
        """Return a model that stands in the tables already, asked with worked examples or together with m_A."""
        # Names say what they depend on, so that a run may go on with other comparisons in the same folder.
        first = f"_first_{limit}" if (limit := self.config.untrained_limit) else ""
        with_examples = f"{EXAMPLES}_{self.config.num_examples}"
        if key == "handover":
            name = f"{key}_of_{with_examples}" if EXAMPLES in self.config.compare else key
            return replace(self.anchor, name=name + first, reads_answers=True)
        if key == "mixture":
            return replace(self.anchor, name=key + first, mixed_with=self.aug)
        if key == EXAMPLES:
            return replace(self.aug, name=with_examples + first, examples=self.config.num_examples)
        return replace(self.anchor, name=f"{key}_{self.config.num_examples}{first}", examples=self.config.num_examples)

    def _answering(self, task: str) -> str:
        """Return whose answers are handed over: m_A's with worked examples, where these are measured as well."""
        has_examples = EXAMPLES in self.config.compare and has_option(task, "shots")
        return self._untrained(EXAMPLES).name if has_examples else self.aug.name

    def _further(self) -> Trained:
        """Return m_B trained further on what m_A was trained on, for as long."""
        train = TrainConfig(base=self.anchor.model, seed=self.config.seed, train=self.config.aug.train)
        settings = self._on(train, self.files.aug, self.files.aug_validation, "")
        stage = stage_in(self.out, SKYLINE, ("train", "anchor"), settings, ("data", *self.anchor.needs))
        return Trained(self.config.seed, SKYLINE, str(stage.folder), (stage,))


def with_data(name: str, settings: EvalConfig, folder: Path) -> EvalConfig:
    """Return the settings of an evaluation with its data in a folder of benchmarks, unless they name it themselves.

    The data is in the folder of the evaluation's own name, or in that of its task.

    Raises:
        UserError: the folder holds no data of the task.
    """
    if settings.dataset:
        return settings
    own = folder / name
    return replace(settings, dataset=str(own if own.exists() else find_data(settings.task, folder)))
