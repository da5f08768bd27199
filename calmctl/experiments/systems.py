"""The models of a section of the paper, and the stages that train and score each of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calmctl.baselines.methods import METHODS
from calmctl.evaluation.evaluating import METRICS_FILE
from calmctl.evaluation.questions import EvalConfig
from calmctl.evaluation.tasks import has_option
from calmctl.experiments.config import ABLATIONS, SKYLINE, UNTRAINED, SectionConfig, is_used_as_it_is
from calmctl.experiments.labels import METHOD_LABELS
from calmctl.experiments.stages import Stage, stage_in
from calmctl.training.configs import TrainConfig

VANILLA_STAGE = "aug_vanilla"
LABELS = {
    "m_A": "m_A alone",
    "m_B": "m_B alone",
    "calm": "CALM",
    "random_aug": "random m_A",
    "vanilla_aug": "vanilla m_A",
    "aug_as_encoder": "m_A as an encoder",
    **METHOD_LABELS,
    "m_A_examples": "m_A with {}",
    "m_B_examples": "m_B with {}",
    "handover": "m_B, given m_A's answer",
    "mixture": "m_B and m_A, mixed byte by byte",
    SKYLINE: "m_B trained further on m_A's data",
}
# Evaluations in which a model writes nothing.
SILENT = ("text",)
EXAMPLES = "m_A_examples"


@dataclass(frozen=True)
class Files:
    """The files of a section's data folder that its trainings read."""

    anchor: str
    anchor_validation: str
    aug: str
    aug_validation: str
    composition: str
    composition_validation: str


@dataclass(frozen=True)
class Trained:
    """A model of one seed.

    Attributes:
        model: its run directory, or what names an existing model that is used as it is.
        stages: those that train it; none where it is used as it is.
        name: of its folders.
        examples: worked examples of tasks that have any; None: as many as these say.
        reads_answers: whether it is given m_A's answers.
        mixed_with: the model that writes together with it.
    """

    seed: int
    name: str
    model: str
    stages: tuple[Stage, ...] = ()
    examples: int | None = None
    reads_answers: bool = False
    mixed_with: "Trained | None" = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the stages that have to be done before it can be used."""
        return tuple(stage.name for stage in self.stages[-1:]) + (self.mixed_with.needs if self.mixed_with else ())

    @property
    def is_asked_otherwise(self) -> bool:
        """Return whether it is a model that stands in the tables already, and is only asked in another way."""
        return self.reads_answers or self.examples is not None or self.mixed_with is not None


@dataclass(frozen=True)
class System:
    """One row of the tables: a model, of one seed or of several."""

    key: str
    label: str
    group: str
    models: tuple[Trained, ...]


class Systems:
    """Builds the systems of a section in a folder.

    Args:
        out: folder of the experiment; what is in it is named by absolute paths.
        files: the data folder's.
        tokenizer: what models that are trained from scratch are trained with.
    """

    def __init__(self, config: SectionConfig, out: Path, files: Files, tokenizer: str) -> None:
        self.config, self.out, self.files, self.tokenizer = config, out, files, tokenizer
        self.data = out / "data"
        self.anchor = self._base("anchor", config.anchor, files.anchor, files.anchor_validation)
        self.aug = self._base("aug", config.aug, files.aug, files.aug_validation)

    def all(self) -> list[System]:
        """Return every system: m_A, m_B, CALM, then what they are compared with."""
        systems = [
            System("m_A", LABELS["m_A"], "models", (self.aug,)),
            System("m_B", LABELS["m_B"], "models", (self.anchor,)),
            self._composed("calm", "models"),
        ]
        for key in self.config.compare:
            if key in METHODS:
                systems.append(self._per_seed(key, "methods", self._baseline))
            elif key in UNTRAINED:
                count, limit = self.config.num_examples, self.config.untrained_limit
                label = LABELS[key].format(f"{count} worked example{'s' if count != 1 else ''}")
                label += f", first {limit} records at most" if limit else ""
                systems.append(System(key, label, "untrained", (self._untrained(key),)))
            elif key == SKYLINE:
                systems.append(System(key, LABELS[key], "skyline", (self._further(),)))
            else:
                systems.append(self._composed(key, "m_A"))
        return systems

    def evaluations(self, model: Trained) -> Iterator[Stage]:
        """Yield the evaluations of a model."""
        settings = self.config.evaluations()
        for name in asked_of(model, settings, self.config.tasks):
            scored, needs = replace(settings[name], model=model.model, threads=self.config.threads), model.needs
            if model.is_asked_otherwise and (limit := self.config.untrained_limit):
                scored = replace(scored, limit=min(limit, scored.limit or limit))
            if model.examples is not None:
                scored = replace(scored, options={**scored.options, "shots": model.examples})
            if model.reads_answers:
                read = f"eval/{name}/{self._answering(scored.task)}"
                scored, needs = replace(scored, handover=str(self.out / read)), (*needs, read)
            if model.mixed_with:
                scored = replace(scored, mix=model.mixed_with.model)
            folder = f"eval/{name}/{model.name}"
            yield stage_in(self.out, folder, ("eval", scored.task), scored, ("data", *needs), METRICS_FILE)

    def _base(self, name: str, train: TrainConfig, file: str, validation: str) -> Trained:
        if is_used_as_it_is(train):
            return Trained(self.config.seed, name, train.base)
        settings = self._on(train, file, validation, "" if train.base else self.tokenizer)
        stage = stage_in(self.out, name, ("train", name), settings, ("data",))
        return Trained(self.config.seed, name, str(stage.folder), (stage,))

    def _on(self, train: TrainConfig, file: str, validation: str, tokenizer: str) -> TrainConfig:
        dataset, held_out = str(self.data / file), str(self.data / validation)
        return replace(train, tokenizer=tokenizer, dataset=dataset, validation=held_out)

    def _per_seed(self, key: str, group: str, build: Callable[[str, str, int], Trained]) -> System:
        count = self.config.num_bridge_seeds
        if key in ABLATIONS:
            count = self.config.num_control_seeds or count
        seeds = range(self.config.seed, self.config.seed + count)
        names = {seed: key if seed == self.config.seed else f"{key}_seed{seed}" for seed in seeds}
        return System(key, LABELS[key], group, tuple(build(key, name, seed) for seed, name in names.items()))

    def _composed(self, key: str, group: str) -> System:
        return self._per_seed(key, group, self._composition)

    def _composition(self, key: str, name: str, seed: int) -> Trained:
        aug = self._vanilla() if key == "vanilla_aug" else self.aug
        settings = replace(
            self.config.compose,
            anchor=self.anchor.model,
            augs=(aug.model,),
            dataset=str(self.data / self.files.composition),
            validation=str(self.data / self.files.composition_validation),
            random_aug=key == "random_aug",
            aug_reads="prompt" if key == "aug_as_encoder" else self.config.compose.aug_reads,
            seed=seed,
        )
        needs = ("data", *self.anchor.needs, *aug.needs)
        stage = stage_in(self.out, name, ("compose",), settings, needs)
        return Trained(seed, name, str(stage.folder), (*aug.stages, stage))

    def _vanilla(self) -> Trained:
        """Return m_A as it was before its domain: its base, or, from scratch, trained on the anchor's data."""
        config = self.config
        if existing := config.vanilla_aug or config.aug.base:
            return Trained(config.seed, "vanilla", existing)
        settings = self._on(config.aug, self.files.anchor, self.files.anchor_validation, self.tokenizer)
        stage = stage_in(self.out, VANILLA_STAGE, ("train", "aug"), settings, ("data",))
        return Trained(config.seed, VANILLA_STAGE, str(stage.folder), (stage,))

    def _baseline(self, key: str, name: str, seed: int) -> Trained:
        settings = replace(
            self.config.baseline,
            method=key,
            anchor=self.anchor.model,
            dataset=str(self.data / self.files.composition),
            validation=str(self.data / self.files.composition_validation),
            match=str(self.out / "calm"),
            seed=seed,
        )
        needs = ("data", *self.anchor.needs, "calm")
        stage = stage_in(self.out, name, ("baseline", key), settings, needs)
        return Trained(seed, name, str(stage.folder), (stage,))

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


def asked_of(model: Trained, settings: Mapping[str, EvalConfig], tasks: Sequence[str]) -> list[str]:
    """Return which evaluations a model takes part in: with worked examples those that have any.

    Windows of long texts take a mixture too long: it reads them byte by byte.
    """
    if model.examples is not None:
        return [name for name in tasks if has_option(settings[name].task, "shots")]
    is_asked_to_write = model.reads_answers or model.mixed_with is not None
    return [name for name in tasks if not (is_asked_to_write and settings[name].task in SILENT)]
