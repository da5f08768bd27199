"""LLM-Adapters' experiment (arXiv 2304.01933): adapters in m_B on its reasoning sets, beside a composition with m_A."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from calmctl.baselines.methods import ADAPTERS, FULL
from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.adapter_systems import CHOICES, AdapterSystems, own_sizes
from calmctl.experiments.config import DECIDED_HERE, ExperimentConfig, chosen, evaluation
from calmctl.experiments.deviations import model_in_words
from calmctl.experiments.reproduction import Experiment
from calmctl.experiments.systems import Files
from calmctl.reporting.systems_table import RANDOM
from calmctl.schema import meaning
from data_builders.reasoning.config import ReasoningDataConfig

_TRAIN, _VALIDATION = "train.parquet", "validation.parquet"
FILES = Files(anchor=_TRAIN, aug=_TRAIN, composition=_TRAIN, composition_validation=_VALIDATION)
_PUBLISHED_EPOCHS, _PUBLISHED_ROWS, _PUBLISHED_BEAMS = 3, 16, 4


@dataclass(frozen=True)
class AdapterAblationsConfig:
    """The two studies of LLM-Adapters, for the methods in `compare`.

    Attributes:
        places: adapters in attention, in the MLP (before it, after it), or in both.
        ranks, widths, virtual_tokens: other sizes than the experiment's own, each trained once more.
    """

    places: bool = True
    ranks: tuple[int, ...] = (4, 8, 16)
    widths: tuple[int, ...] = (64, 128, 512)
    virtual_tokens: tuple[int, ...] = (20, 30, 40)

    def __post_init__(self) -> None:
        """Raise ValueError for a size below 1, or named twice."""
        for name in ("ranks", "widths", "virtual_tokens"):
            values = getattr(self, name)
            if min(values, default=1) < 1 or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)}: sizes from 1 on, each named once")


@dataclass(frozen=True)
class ReproduceAdaptersConfig(ExperimentConfig):
    """Settings of the experiment on adapters.

    `compare` names adapters (`adapter_systems.CHOICES`), `full` (m_B fine-tuned as a whole), and `random_aug` (an
    untrained m_A). Without `aug.base` there is no composition.

    Attributes:
        benchmarks: folder `dataset` of LLM-Adapters, or one laid out like it (`--data`).
        rank, width, virtual_tokens: size of LoRA; of series and parallel adapters; of prefixes, prompts and p-tuning.
        equal_parameters: give every method as many trainable parameters as the composition has, instead of these sizes.
        published: place and initialise adapters as LLM-Adapters' commands do: single layers, no start at the identity,
            LoRA with a dropout of 0.05. Otherwise `baseline` says how, and adapters sit at whole blocks.
        ablate: also run `ablations` (`--ablations`).
        arithmetic, commonsense: answers, asked for and read as LLM-Adapters does.
        commonsense_likelihood: choices by their likelihood, as lm-evaluation-harness scores them.
    """

    COMPARISONS: ClassVar[tuple[str, ...]] = (*CHOICES, FULL, RANDOM)
    DECIDED_HERE: ClassVar[tuple[str, ...]] = (
        *DECIDED_HERE, "baseline.where", "baseline.targets", "baseline.validation", "compose.validation",
    )  # fmt: skip

    tasks: tuple[str, ...] = chosen("arithmetic")
    compare: tuple[str, ...] = chosen("prefix", "series", "parallel", "lora")
    benchmarks: str = field(default="", metadata=meaning(may_differ=True))
    rank: int = field(default=32, metadata=meaning("comparison"))
    width: int = field(default=256, metadata=meaning("comparison"))
    virtual_tokens: int = field(default=10, metadata=meaning("comparison"))
    equal_parameters: bool = field(default=False, metadata=meaning("comparison"))
    published: bool = field(default=False, metadata=meaning("comparison"))
    ablate: bool = field(default=False, metadata=meaning("comparison", may_differ=True))
    ablations: AdapterAblationsConfig = field(
        default_factory=AdapterAblationsConfig, metadata=meaning("comparison", may_differ=True)
    )
    data: ReasoningDataConfig = field(default_factory=ReasoningDataConfig)
    arithmetic: EvalConfig = evaluation("arithmetic")
    commonsense: EvalConfig = evaluation("commonsense")
    commonsense_likelihood: EvalConfig = evaluation("commonsense_likelihood", "commonsense", {"protocol": "likelihood"})

    def __post_init__(self) -> None:
        """Also raise ValueError for sizes below 1, a mixed-up protocol, or a comparison that needs an m_A."""
        super().__post_init__()
        for name in ("rank", "width", "virtual_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name, protocol in (("commonsense", "llm-adapters"), ("commonsense_likelihood", "likelihood")):
            if (asked := getattr(self, name).build_task().protocol) != protocol:
                raise ValueError(f"{name}.options.protocol={asked}: it is {protocol}; see `tasks`")
        if self.aug.train.steps or self.anchor.train.steps:
            raise ValueError("anchor and aug are models as they are here; leave their train.steps at 0")
        for name, needs_aug in (("equal_parameters", self.equal_parameters), (RANDOM, RANDOM in self.compare)):
            if needs_aug and not self.aug.base:
                raise ValueError(f"{name}: there is no composition without an m_A; give --aug MODEL, or leave it out")

    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of every evaluation, by name."""
        names = ("arithmetic", "commonsense", "commonsense_likelihood")
        return {name: getattr(self, name) for name in names}


def adapters_experiment(config: ReproduceAdaptersConfig, out: Path) -> Experiment:
    """Return the experiment in the folder `out`.

    Raises:
        UserError: no model or no folder of sets is given.
    """
    if not config.anchor.base:
        raise UserError("anchor.base is not set; give --anchor MODEL, the model that gets adapters")
    if not config.benchmarks:
        raise UserError("benchmarks is not set; give --data FOLDER, the folder `dataset` of LLM-Adapters")
    config = _complete(config)
    return Experiment(
        "adapters", config, config.data, FILES, AdapterSystems, "", _deviations(config), values=own_sizes(config),
        builder="reasoning",
    )  # fmt: skip


def _complete(config: ReproduceAdaptersConfig) -> ReproduceAdaptersConfig:
    """Return the configuration with the data of every task."""
    folder = str(Path(config.benchmarks).expanduser().resolve())
    gsm8k = config.data.gsm8k
    if gsm8k is not None and (there := Path(gsm8k).expanduser()).exists():
        gsm8k = str(there.resolve())  # stages run elsewhere
    changes = {name: replace(each, dataset=each.dataset or folder) for name, each in config.evaluations().items()}
    return replace(config, data=replace(config.data, data_folder=folder, gsm8k=gsm8k), **changes)  # type: ignore[arg-type]


def _deviations(config: ReproduceAdaptersConfig) -> list[str]:
    """Return a sentence for each departure from LLM-Adapters."""
    data, train, found = config.data, config.baseline.train, []
    found.append(f"m_B is {model_in_words(config.anchor)}; the published models have 6 to 13 billion parameters")
    if data.overlaps == "remove":
        found.append("questions of the test sets are taken out of the training data; the published mixes hold many")
    if data.mix == "arithmetic":
        found.append("the mix is of MAWPS's and GSM8K's own training sets; math_10k adds generated rationales and AQuA")
    else:
        found.append("the mix is of the training files that are there; commonsense_170k has those of all eight sets")
    if data.loss_on != "all":
        found.append("the loss is that of the answers; LLM-Adapters also trains on the prompts")
    if not config.published:
        found.append("adapters sit at whole blocks and start at the identity (prefixes: near it)")
    rows = f"{train.batch_tokens} tokens" if train.batch_tokens else f"{train.batch_size} rows"
    found.append(
        f"{train.steps} steps of {rows} instead of {_PUBLISHED_EPOCHS} passes over the data in batches of "
        f"{_PUBLISHED_ROWS}"
    )
    for name in config.tasks:
        settings = config.evaluations()[name]
        if settings.limit:
            found.append(f"{name}: only the first {settings.limit} questions of each set are asked")
        if sets := settings.options.get("sets"):
            found.append(f"{name}: only {', '.join(sets)}")
        if name != "commonsense_likelihood" and settings.decoding.num_beams != _PUBLISHED_BEAMS:
            found.append(f"{name}: decoding is {settings.decoding.name}; LLM-Adapters has {_PUBLISHED_BEAMS} beams")
    prompts = [name for name in config.compare if name in CHOICES and ADAPTERS[CHOICES[name].method].is_prompt]
    if prompts:
        found.append(f"{' and '.join(prompts)}: LLM-Adapters has the code, but no results")
    return found
