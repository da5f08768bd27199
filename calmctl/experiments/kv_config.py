"""The settings of the key-value experiment and of its ablations."""

from dataclasses import dataclass, field
from typing import ClassVar

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.options import METHODS
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.config import DECIDED_HERE, ExperimentConfig, chosen
from calmctl.schema import meaning
from data_builders.kv.build import KVDataConfig


@dataclass(frozen=True)
class KVAblationsConfig:
    """Ablations: each changes one thing of the headline composition.

    Values equal to the headline's are skipped, so that it is not trained twice.

    Attributes:
        vanilla_aug: also with an m_A trained on the anchor's data, which never gives the value of a key.
        encoder_aug: also with an m_A that reads the prompt only.
        every: numbers of m_A's layers per connection.
        heads: numbers of cross-attention heads.
        shares: fractions of the keys (0 to 1) that D_C is drawn from.
        methods: baselines, trained on the same D_C; with as many parameters as CALM if the method has a size.
        further_training: also the anchor trained further on m_A's data.
    """

    vanilla_aug: bool = True
    encoder_aug: bool = True
    every: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    methods: tuple[str, ...] = ()
    further_training: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range, unknown, or named twice."""
        for name in ("every", "heads", "shares", "methods"):
            values = getattr(self, name)
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{name}={list(values)} names {twice[0]} twice")
        for name in ("every", "heads"):
            if low := [value for value in getattr(self, name) if value < 1]:
                raise ValueError(f"{name}={list(getattr(self, name))}: {low[0]} must be at least 1")
        for share in self.shares:
            if not 0 < share < 1:
                raise ValueError(f"shares={list(self.shares)}: {share:g} must lie between 0 and 1 (0.05 = 5 percent)")
        if unknown := [method for method in self.methods if method not in METHODS]:
            raise ValueError(f"methods: {unknown[0]!r} is not one of {', '.join(METHODS)}")


@dataclass(frozen=True)
class ReproduceKVConfig(ExperimentConfig):
    """Settings of the key-value experiment.

    `compare` may name `random_aug` (an untrained m_A), `dc_subs` and `dc_math` (other kinds of D_C), and
    `one_tokenizer` (an m_A trained with m_B's tokenizer).

    Attributes:
        control_steps: optimizer steps of `random_aug`, `dc_subs` and `dc_math`; 0 = as many as CALM.
        ablate: also run `ablations` (`--ablations`).
        eval: the evaluation of every model.
    """

    COMPARISONS: ClassVar[tuple[str, ...]] = ("random_aug", "dc_subs", "dc_math", "one_tokenizer")
    DECIDED_HERE: ClassVar[tuple[str, ...]] = (*DECIDED_HERE, "eval.model", "eval.dataset")

    tasks: tuple[str, ...] = chosen("kv")
    compare: tuple[str, ...] = chosen("random_aug", "dc_subs", "dc_math")
    control_steps: int = 0
    ablate: bool = field(default=False, metadata=meaning("comparison", may_differ=True))
    data: KVDataConfig = field(default_factory=KVDataConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig, metadata=meaning("comparison"))
    ablations: KVAblationsConfig = field(
        default_factory=KVAblationsConfig, metadata=meaning("comparison", may_differ=True)
    )

    def __post_init__(self) -> None:
        """Also raise ValueError for another task, or for `one_tokenizer` if the models share a tokenizer anyway."""
        super().__post_init__()
        if self.tasks != ("kv",):
            raise ValueError(f"tasks={list(self.tasks)}: this experiment has one, kv; leave it out")
        if "one_tokenizer" in self.compare and self.data.anchor_cut is None:
            raise ValueError("compare names one_tokenizer, and the models have one tokenizer; set data.anchor_cut")

    def evaluations(self) -> dict[str, EvalConfig]:
        """Return the settings of the one evaluation, by name."""
        return {"kv": self.eval}
