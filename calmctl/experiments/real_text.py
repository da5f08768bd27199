"""Settings and systems that the experiments on real text (ntl, code) share."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from calmctl.baselines.options import METHODS
from calmctl.evaluation.config import EvalConfig
from calmctl.evaluation.tasks import find_data, has_option
from calmctl.experiments.config import DECIDED_HERE, ExperimentConfig, is_used_as_it_is
from calmctl.experiments.stage import stage_in
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
# Tasks that only measure likelihoods and generate nothing.
SILENT = ("text",)


@dataclass(frozen=True)
class RealTextConfig(ExperimentConfig):
    """Settings of an experiment on real text.

    `compare` may name `random_aug` and `vanilla_aug` (another m_A), `aug_as_encoder` (m_A reads prompts only), methods
    of `METHODS` (trained on D_C at CALM's size), `m_B_finetuned` (m_B trained further on m_A's data, as m_A was: the
    paper's skyline); and without training `m_A_examples` and `m_B_examples` (with `num_examples` worked examples),
    `handover` (m_B reads m_A's answer) and `mixture` (the average of both models' probabilities of each byte).

    Attributes:
        benchmarks: folder that holds the data of each task (`--data`).
        num_examples: worked examples of `m_A_examples` and `m_B_examples`, in tasks that have any.
        untrained_limit: limit of records per task (per language) for comparisons without training, which read longer
            prompts or decode slower; 0 = the same records as for the other systems.
        vanilla_aug: m_A before it was trained on its domain, if not `aug.base` or one trained from scratch.
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
        """Also raise ValueError for a comparison that cannot be made."""
        super().__post_init__()
        if "vanilla_aug" in self.compare and not self.vanilla_aug and is_used_as_it_is(self.aug):
            raise ValueError("compare names vanilla_aug: set vanilla_aug=MODEL, what m_A was before it was specialised")
        if SKYLINE in self.compare and is_used_as_it_is(self.aug):
            raise ValueError(f"compare names {SKYLINE}, which is trained as m_A is, and m_A is not; leave it out")
        if "aug_as_encoder" in self.compare and not self.has_prompts:
            raise ValueError("compare names aug_as_encoder, which reads prompts, and D_C has none; leave it out")

    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of every evaluation, by name: the fields of type EvalConfig."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, EvalConfig)}

    def existing_models(self) -> list[str]:
        """Return the sources of all models that exist before the experiment."""
        return [*super().existing_models(), *filter(None, [self.vanilla_aug])]

    def variants(self, evaluation: EvalConfig) -> list[EvalConfig]:
        """Return an evaluation with all settings that models are asked with: with worked examples too, if compared."""
        if not set(WITH_EXAMPLES) & set(self.compare) or not has_option(evaluation.task, "shots"):
            return [evaluation]
        return [evaluation, replace(evaluation, options={**evaluation.options, "shots": self.num_examples})]

    @property
    @abstractmethod
    def has_prompts(self) -> bool:
        """Return whether the rows of D_C are prompts and completions."""

    def completed(self, data: object, evaluations: Mapping[str, EvalConfig]) -> Self:
        """Return the configuration with these settings of its data and of some evaluations."""
        changes: dict[str, Any] = {"data": data, **evaluations}
        return replace(self, **changes)


class RealTextSystems(Systems):
    """Builds the systems of an experiment on real text."""

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
        """Return the names of a model's evaluations: for worked examples, only tasks that can have them.

        Handover and mixture skip tasks without generation: a mixture reads byte by byte, too slow for long texts.
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
        """Return m_A without its domain: its base, or one trained from scratch on the anchor's data."""
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
        """Return m_A or m_B, to be evaluated with worked examples, with m_A's answers or in a mixture."""
        # Names contain the settings, so that a run may go on with other values of these in the same folder.
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
        """Return the name of the model that gives the answers: m_A, with worked examples if those are evaluated."""
        has_examples = EXAMPLES in self.config.compare and has_option(task, "shots")
        return self._untrained(EXAMPLES).name if has_examples else self.aug.name

    def _further(self) -> Trained:
        """Return m_B trained further on m_A's data, with m_A's training settings."""
        train = TrainConfig(base=self.anchor.model, seed=self.config.seed, train=self.config.aug.train)
        settings = self._on(train, self.files.aug, self.files.aug_validation, "")
        stage = stage_in(self.out, SKYLINE, ("train", "anchor"), settings, ("data", *self.anchor.needs))
        return Trained(self.config.seed, SKYLINE, str(stage.folder), (stage,))


def with_data(name: str, settings: EvalConfig, folder: Path) -> EvalConfig:
    """Return the settings of an evaluation with `dataset` set to its data in `folder`, unless it is set already.

    The data is in a subfolder named after the evaluation or, if there is none, after its task.

    Raises:
        UserError: the folder holds no data of the task.
    """
    if settings.dataset:
        return settings
    own = folder / name
    return replace(settings, dataset=str(own if own.exists() else find_data(settings.task, folder)))
