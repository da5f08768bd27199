"""What a training run is told: optimizer, schedule, batches, precision, curriculum."""

from dataclasses import dataclass, field

from calmctl.schema import meaning

CHOICES = {
    "precision": ("fp32", "bf16", "fp16"),
    "optimizer": ("muon", "adamw"),
    "schedule": ("warmup_hold_decay", "linear", "cosine", "constant"),
    "on_long_example": ("fail", "drop", "truncate"),
    "on_empty_completion": ("fail", "drop"),
    "sharding": ("none", "fsdp"),
    "keep_states": ("none", "auto", "memory", "disk"),
    "sampling": ("replacement", "epochs"),
}
TRACKERS = ("tensorboard", "wandb")
_AT_LEAST_1 = ("batch_size", "accumulation", "bucket_width", "save_every", "log_every")
_NOT_NEGATIVE = ("batch_tokens", "warmup_steps", "grad_clip", "eval_every", "patience", "threads", "validation_limit")


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
        if self.final_weights and not (
            all(0 <= weight < float("inf") for weight in self.final_weights) and any(self.final_weights)
        ):
            raise ValueError("curriculum.final_weights must be numbers that are not negative, and not all 0")
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
        on_long_example: what happens to examples longer than the model's context: `fail`, `drop` them, or `truncate`
            their ends (those whose prompt alone is too long are dropped).
        on_empty_completion: what happens to examples with nothing to learn: `fail`, or `drop` them.
        packing: rows of `text` are packed into rows of `context` tokens, in which no document sees another; longer
            documents are cut. `batch_size` counts packed rows.
        context: tokens of a packed row; a model with a shorter context gets its own.
        bucket_width: examples whose lengths fall into the same bucket (tokens) share batches.
        sampling: `replacement` draws every batch anew; `epochs` takes every example once before any comes again, which
            suits models that know an example by heart once they have seen it.
        validation_share: share of the data (0 to 1) that is held out for validation, where no file is given for it.
        validation_limit: hold out so many examples at most; 0 = no limit.
        eval_every: steps between validations; 0 = `save_every`.
        patience: end after so many validations that were not better than the best; 0 = never.
        keep_best: end with the weights of the best validation instead of the last ones.
        stop_when_worse: end bridges or adapters in an error once their validation loss stays above what the base has
            alone (see `validation.stays_worse`).
        save_every, log_every: steps.
        report_to: `tensorboard` and `wandb`: where the log goes beside `train_log.jsonl`.
        threads: CPU threads of this process; 0 = torch's default.
        keep_states: where states that no training of bridges changes (those of the augs, and the anchor's below the
            first bridge) are kept from epoch to epoch: `memory`, `disk` (in the run's folder), `none`, or `auto`, which
            is `memory` where everything is looked at twice and takes 4 GiB at most.
        sharding: with several processes, `none` (each holds the whole model, DDP) or `fsdp` (the layers of a model that
            is trained, and those of frozen bases, are spread over all; bridges and adapters are not). It changes how a
            run is computed, not what: a run may go on with another.
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
    on_long_example: str = "fail"
    on_empty_completion: str = "fail"
    packing: bool = False
    context: int = 1024
    bucket_width: int = 8
    sampling: str = "replacement"
    validation_share: float = 0.0
    validation_limit: int = 0
    eval_every: int = 0
    patience: int = 0
    keep_best: bool = False
    stop_when_worse: bool = field(default=True, metadata=meaning("free"))
    save_every: int = 500
    log_every: int = 25
    report_to: tuple[str, ...] = ()
    threads: int = field(default=0, metadata=meaning(may_differ=True))
    keep_states: str = field(default="none", metadata=meaning("free"))
    sharding: str = field(default="none", metadata=meaning("free"))
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"train.{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")
        for name in _AT_LEAST_1:
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)} must be at least 1")
        if unknown := [name for name in self.report_to if name not in TRACKERS]:
            raise ValueError(f"train.report_to={unknown[0]!r} is not one of {', '.join(TRACKERS)}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name}={getattr(self, name)} must not be negative")
        for name in ("weight_decay", "momentum"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"train.{name}={getattr(self, name)} must be a number that is not negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"train.betas={list(self.betas)} must be two numbers in [0, 1)")
        for name in ("hold_share", "final_lr_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name}={getattr(self, name)} must lie in [0, 1]")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"train.validation_share={self.validation_share} must lie in [0, 1)")
        if self.context < 2:
            raise ValueError(f"train.context={self.context} must be at least 2")
        for name in ("lr", "adamw_lr"):
            if not (0 < getattr(self, name) < float("inf")):
                raise ValueError(f"train.{name}={getattr(self, name)} must be a positive number")
        if self.steps < 0:
            raise ValueError(f"train.steps={self.steps} must not be negative (0 saves the untrained model)")
        self._check_together()

    def _check_together(self) -> None:
        """Raise ValueError for settings that do not go with each other."""
        if self.sampling == "epochs" and self.curriculum.field:
            raise ValueError("train.sampling=epochs: a curriculum draws examples by their level; unset one of the two")
        if self.packing and self.curriculum.field:
            raise ValueError("train.packing=true mixes the levels of a curriculum; unset one of the two")
        if self.batch_size % self.accumulation and not self.batch_tokens:
            raise ValueError(
                f"train.batch_size={self.batch_size} must be a multiple of train.accumulation={self.accumulation}"
            )

    @property
    def validation_steps(self) -> int:
        """Return the steps between two validations."""
        return self.eval_every or self.save_every
