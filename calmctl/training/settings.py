"""What a training run is told: optimizer, schedule, batches, precision, curriculum."""

from dataclasses import dataclass, field

PRECISIONS = ("fp32", "bf16", "fp16")
OPTIMIZERS = ("muon", "adamw")
SHARDINGS = ("none", "fsdp")
SCHEDULES = ("warmup_hold_decay", "linear", "cosine", "constant")


@dataclass(frozen=True)
class CurriculumSettings:
    """An adaptive curriculum over an integer field of the examples' `meta`.

    Training starts with the smallest value and moves to the next one when the running exact match there passes the
    threshold. Below the last level, `top_share` of the batches are of the current level and the rest are spread over
    the lower ones; at the last level, batches are spread by `final_weights`.

    Attributes:
        field: the field of `meta`; empty = no curriculum.
        start, stop: first and last level (inclusive).
        threshold: running exact match (0 to 1) at which the next level begins.
        top_share: share of batches at the current level.
        final_weights: weight of each level, `start` to `stop`, once the last one is reached; empty = equal.
        held_back_kind: examples of this `meta.kind` are left out until ...
        held_back_until: ... this level is reached, and do not count for the threshold.
    """

    field: str = ""
    start: int = 2
    stop: int = 6
    threshold: float = 0.7
    top_share: float = 0.5
    final_weights: tuple[float, ...] = ()
    held_back_kind: str = ""
    held_back_until: int = 4

    def __post_init__(self) -> None:
        if not self.start <= self.stop:
            raise ValueError(f"curriculum.start={self.start} must not exceed curriculum.stop={self.stop}")
        if self.final_weights and len(self.final_weights) != self.stop - self.start + 1:
            raise ValueError(
                f"curriculum.final_weights has {len(self.final_weights)} entries for levels {self.start} to {self.stop}"
            )
        for name in ("threshold", "top_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"curriculum.{name}={getattr(self, name)} must lie in (0, 1]")


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained.

    Attributes:
        steps: optimizer steps.
        batch_size: examples per optimizer step, over all accumulated micro-batches.
        batch_tokens: when not 0, take as many examples per step as fit into this many tokens instead.
        accumulation: micro-batches per optimizer step.
        optimizer: `muon` (matrices by Muon at `lr`, everything else by AdamW at `adamw_lr`) or `adamw` (all at `lr`).
        schedule: `warmup_hold_decay` holds the rate until `hold_share` of the steps, then decays linearly to
            `final_lr_share` of it.
        warmup_steps: steps of linear warm-up.
        grad_clip: largest gradient norm; 0 = no clipping.
        precision: fp32, or autocast to bf16 or fp16.
        append_eos: end every completion with the end-of-text token and learn it.
        bucket_width: examples whose lengths fall into the same bucket (tokens) share batches.
        save_every, log_every: steps.
        threads: CPU threads of this process; 0 = torch's default.
        sharding: with several processes, `none` (each holds the whole model, DDP) or `fsdp` (the layers of a model that
            is trained, and those of frozen bases, are spread over all; bridges are not). It changes how a run is
            computed, not what: a run may go on with another.
    """

    steps: int = 1000
    batch_size: int = 32
    batch_tokens: int = 0
    accumulation: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-4
    adamw_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    momentum: float = 0.95
    schedule: str = "warmup_hold_decay"
    warmup_steps: int = 100
    hold_share: float = 0.5
    final_lr_share: float = 0.02
    grad_clip: float = 1.0
    precision: str = "fp32"
    append_eos: bool = True
    bucket_width: int = 8
    save_every: int = 500
    log_every: int = 25
    threads: int = 0
    sharding: str = "none"
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)

    def __post_init__(self) -> None:
        for name, choices in (
            ("precision", PRECISIONS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("sharding", SHARDINGS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"train.{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")
        for name in ("batch_size", "accumulation", "bucket_width", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "adamw_lr"):
            if not (0 < getattr(self, name) < float("inf")):
                raise ValueError(f"train.{name}={getattr(self, name)} must be a positive number")
        if self.steps < 0:
            raise ValueError(f"train.steps={self.steps} must not be negative (0 saves the untrained model)")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"train.batch_size={self.batch_size} must be a multiple of train.accumulation={self.accumulation}"
            )
