"""The settings of the key-value experiment and of its ablations."""

from dataclasses import dataclass, field

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.methods import METHODS
from calmctl.environment import usable_cores
from calmctl.evaluation.evaluating import EvalConfig
from calmctl.experiments.shared_settings import give_one_seed, refuse_decided
from calmctl.schema import meaning
from calmctl.training.configs import ComposeConfig, TrainConfig, check_seed
from data_builders.kv.build import KVDataConfig

# Settings of the stages' configurations that follow from where the experiment puts things.
DECIDED_HERE = (
    "anchor.dataset", "anchor.tokenizer", "aug.dataset", "aug.tokenizer", "compose.dataset", "compose.anchor",
    "compose.augs", "eval.model", "eval.dataset", "baseline.method", "baseline.anchor", "baseline.dataset",
    "baseline.match", "baseline.parameters", "baseline.size", "baseline.merge",
)  # fmt: skip


COMPARISONS = ("random_aug", "dc_subs", "dc_math", "one_tokenizer")


@dataclass(frozen=True)
class KVAblationsConfig:
    """What is varied around the headline composition, one thing at a time.

    Values of the headline itself are left out: it is not trained twice.

    Attributes:
        vanilla_aug: an m_A that was trained on the anchor's data, which never says what a key is worth.
        encoder_aug: m_A reads the prompt only.
        every: connections at every so many layers.
        heads: numbers of cross-attention heads.
        shares: shares of the keys (0 to 1) that D_C is made over.
        methods: baselines, trained on the same D_C with as many parameters as CALM where the method has a size.
        further_training: the anchor trained further on all of m_A's data.
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
class ReproduceKVConfig:
    """The whole experiment.

    Attributes:
        preset: name of the preset, for the report.
        seed: of every stage.
        jobs: stages at once; 0 = as many as there are cores for their threads.
        threads: CPU threads of each stage.
        controls: also train and score what `compare` names.
        compare: what is compared with the headline composition: `random_aug` (an untrained m_A), `dc_subs` and
            `dc_math` (other kinds of D_C), `one_tokenizer` (an m_A that is trained with m_B's tokenizer).
        control_steps: optimizer steps of the controls; 0 = as many as the headline composition.
        baseline: how the methods that CALM is compared with are trained.
        ablations: what `--ablations` varies.
    """

    preset: str = ""
    seed: int = 0
    jobs: int = field(default=0, metadata=meaning("free"))
    threads: int = 1
    controls: bool = True
    compare: tuple[str, ...] = ("random_aug", "dc_subs", "dc_math")
    control_steps: int = 0
    data: KVDataConfig = field(default_factory=KVDataConfig)
    anchor: TrainConfig = field(default_factory=TrainConfig)
    aug: TrainConfig = field(default_factory=TrainConfig)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    ablations: KVAblationsConfig = field(default_factory=KVAblationsConfig, metadata=meaning("free"))

    @property
    def stages_at_once(self) -> int:
        """Return `jobs`, or how many stages the cores of this machine have room for."""
        return self.jobs or max(1, usable_cores() // self.threads)

    def __post_init__(self) -> None:
        """Give every stage the one seed; raise ValueError for settings that the experiment itself decides."""
        check_seed(self.seed)
        for name in ("jobs", "control_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.threads < 1:
            raise ValueError(f"threads={self.threads} must be at least 1")
        self._check_compared()
        give_one_seed(self)
        refuse_decided(self, DECIDED_HERE)

    def _check_compared(self) -> None:
        if unknown := [name for name in self.compare if name not in COMPARISONS]:
            raise ValueError(f"compare: {unknown[0]!r} is not one of {', '.join(COMPARISONS)}")
        if twice := [name for name in self.compare if self.compare.count(name) > 1]:
            raise ValueError(f"compare={list(self.compare)} names {twice[0]} twice")
        if self.controls and "one_tokenizer" in self.compare and self.data.anchor_cut is None:
            raise ValueError("compare names one_tokenizer, and the models have one tokenizer; set data.anchor_cut")
