"""Settings of the experiment on adapters, and the kinds of adapters that it can compare."""

from dataclasses import dataclass, field
from typing import ClassVar

from calmctl.baselines.options import (
    ADAPTER_H,
    ADAPTER_P,
    AROUND,
    ATTENTION,
    BEFORE,
    BOTH,
    FEED_FORWARD,
    FULL,
    PUBLISHED,
    Where,
)
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.config import DECIDED_HERE, ExperimentConfig, chosen, evaluation
from calmctl.reporting.systems_table import RANDOM
from calmctl.schema import meaning
from data_builders.reasoning.config import ReasoningDataConfig


@dataclass(frozen=True)
class Choice:
    """One kind of adapter in one place.

    Attributes:
        targets: the published name of its layers, for `published`; empty = the whole blocks, then too.
    """

    method: str
    where: Where = ""
    targets: str = ""


CHOICES = {
    "prefix": Choice("prefix"),
    "prompt": Choice("prompt"),
    "p_tuning": Choice("p_tuning"),
    "series": Choice("series", FEED_FORWARD, ADAPTER_P),
    "series_before": Choice("series", BEFORE, PUBLISHED),
    "adapter_h": Choice("series", AROUND, ADAPTER_H),
    "series_attention": Choice("series", ATTENTION),
    "series_both": Choice("series", BOTH),
    "parallel": Choice("parallel", FEED_FORWARD, PUBLISHED),
    "parallel_attention": Choice("parallel", ATTENTION),
    "parallel_both": Choice("parallel", BOTH),
    "lora": Choice("lora", BOTH, PUBLISHED),
    "lora_attention": Choice("lora", ATTENTION),
    "lora_feed_forward": Choice("lora", FEED_FORWARD),
}
"""Name in `compare` -> what is trained. The names of LLM-Adapters stand in docs/adapters.md."""
# Setting of a size -> the methods that have it.
SIZES = {"rank": ("lora",), "width": ("series", "parallel"), "virtual_tokens": ("prefix", "prompt", "p_tuning")}


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

    `compare` names adapters (CHOICES), `full` (m_B fine-tuned as a whole), and `random_aug` (an untrained m_A).
    Without `aug.base` there is no composition.

    Attributes:
        benchmarks: folder `dataset` of LLM-Adapters, or one laid out like it (`--data`).
        rank, width, virtual_tokens: size of LoRA; of series and parallel adapters; of prefixes, prompts and p-tuning.
        equal_parameters: give every method as many trainable parameters as the composition has, instead of these sizes.
        published: place and initialise adapters as LLM-Adapters' commands do: single layers, no start at the identity,
            LoRA with a dropout of 0.05. Otherwise `baseline` says how (what a method has of it), at whole blocks.
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
        if self.published and (changed := self.baseline.options.changed()):
            raise ValueError(f"published=true says how adapters are built; leave baseline.{next(iter(changed))} out")
        if self.ablate and not set(CHOICES) & set(self.compare):
            raise ValueError("ablate: compare names no adapter whose place or size could be studied")
        for name, needs_aug in (("equal_parameters", self.equal_parameters), (RANDOM, RANDOM in self.compare)):
            if needs_aug and not self.aug.base:
                raise ValueError(f"{name}: there is no composition without an m_A; give --aug MODEL, or leave it out")

    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of every evaluation, by name."""
        names = ("arithmetic", "commonsense", "commonsense_likelihood")
        return {name: getattr(self, name) for name in names}
