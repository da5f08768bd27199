"""The settings of a training: optimizer, schedule, batches, precision, curriculum."""

from dataclasses import dataclass, field, replace
from typing import Literal

from calmctl.schema import check_choices, meaning

TRACKERS = ("tensorboard", "wandb")
MOST_EPOCHS = 1_000_000
_AT_LEAST_1 = ("batch_size", "accumulation", "bucket_width", "save_every", "log_every")
_NOT_NEGATIVE = ("batch_tokens", "warmup_steps", "grad_clip", "eval_every", "patience", "threads", "validation_limit")


@dataclass(frozen=True)
class CurriculumSettings:
    """An adaptive curriculum over an integer field of the examples' `meta`.

    Training starts at the first level (value of the field) and moves to the next when the running exact match there
    passes the threshold. Below the last level, `top_share` of the batches come from the current level and the rest
    evenly from the lower ones; at the last level, `final_weights` apply.

    Attributes:
        field: the field of `meta`; empty = no curriculum.
        start, stop: first and last level (inclusive).
        threshold: running exact match (0 to 1) at which the next level begins.
        top_share: share of batches at the current level.
        final_weights: weight of each level, `start` to `stop`, once the last one is reached; empty = equal.
        held_back_kind: `meta.kind` of examples that are held back, and never count for the threshold.
        held_back_until: level from which on held-back examples are drawn.
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
        steps: optimizer steps; 0 if `epochs` is given instead.
        epochs: passes over the training data (2.5 is possible), from which the steps follow once the data is read; 0 =
            `steps` says how long.
        batch_size: examples per optimizer step, over all accumulated micro-batches.
        batch_tokens: if not 0, take as many examples per step as fit into this many tokens instead.
        accumulation: micro-batches per optimizer step.
        optimizer: `muon` (matrices by Muon at `lr`, everything else by AdamW at `adamw_lr`) or `adamw` (all at `lr`).
        lr: learning rate after the warm-up.
        adamw_lr: with `muon`, learning rate of what AdamW trains.
        betas: decay of AdamW's two running averages, of gradients and of their squares.
        weight_decay: decay of the weights at each step, as a factor of the learning rate.
        momentum: of Muon.
        schedule: `warmup_hold_decay` holds the rate until `hold_share` of the steps, then decays linearly to
            `final_lr_share` of it.
        hold_share: share of the steps (0 to 1) up to which `warmup_hold_decay` holds the rate.
        final_lr_share: share of `lr` that is left at the last step.
        warmup_steps: steps of linear warm-up.
        grad_clip: largest gradient norm; 0 = no clipping.
        precision: fp32, or autocast to bf16 or fp16.
        append_eos: end every completion with the end-of-text token and learn it.
        on_long_example: for examples longer than the model's context: `fail`, `drop` them, or `truncate` their ends
            (those whose prompt alone is too long are dropped).
        on_empty_completion: for examples with nothing to learn: `fail`, or `drop` them.
        packing: pack rows of `text` into rows of `context` tokens, in which no document sees another; cut longer
            documents. `batch_size` counts packed rows.
        context: tokens of a packed row; at most the model's context.
        bucket_width: width of the length buckets in tokens; examples of one bucket share batches.
        sampling: `replacement` draws every batch anew; `epochs` takes every example once before any comes again, which
            suits models that memorise an example the first time they see it.
        validation_share: share of the data (0 to 1) to hold out for validation, if no file is given for it.
        validation_limit: hold out at most this many examples; 0 = no limit.
        eval_every: steps between validations; 0 = `save_every`.
        patience: stop after this many validations without a new best; 0 = never.
        keep_best: save the weights of the best validation instead of the last ones.
        stop_when_worse: stop bridges or adapters with an error once their validation loss stays above that of the base
            alone (see `validation.stays_worse`).
        save_every, log_every: steps.
        report_to: trackers that receive the log beside `train_log.jsonl`: `tensorboard`, `wandb`.
        threads: CPU threads of this process; 0 = torch's default.
        keep_states: where to keep, from epoch to epoch, hidden states that training the bridges cannot change (those of
            the augs, and the anchor's below the first bridge): `memory`, `disk` (in the run's folder), `none`, or
            `auto`, which is `memory` if every example is read at least twice and all states fit into 4 GiB.
        sharding: with several processes, `none` (DDP: each holds the whole model) or `fsdp` (decoder layers, trained or
            frozen, are spread over the processes; bridges and adapters are not). It does not change the result; a run
            may resume with another value.
    """

    steps: int = field(default=1000, metadata=meaning(grows=True))
    epochs: float = field(default=0.0, metadata=meaning(grows=True, instead_of="steps"))
    batch_size: int = 32
    batch_tokens: int = 0
    accumulation: int = 1
    optimizer: Literal["muon", "adamw"] = "adamw"
    lr: float = 1e-4
    adamw_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    momentum: float = 0.95
    schedule: Literal["warmup_hold_decay", "linear", "cosine", "constant"] = "warmup_hold_decay"
    warmup_steps: int = 100
    hold_share: float = 0.5
    final_lr_share: float = 0.02
    grad_clip: float = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    append_eos: bool = True
    on_long_example: Literal["fail", "drop", "truncate"] = "fail"
    on_empty_completion: Literal["fail", "drop"] = "fail"
    packing: bool = False
    context: int = 1024
    bucket_width: int = 8
    sampling: Literal["replacement", "epochs"] = "replacement"
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
    keep_states: Literal["none", "auto", "memory", "disk"] = field(default="none", metadata=meaning("free"))
    sharding: Literal["none", "fsdp"] = field(default="none", metadata=meaning("free"))
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)

    def __post_init__(self) -> None:
        check_choices(self, "train.")
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
        if not 0 <= self.epochs <= MOST_EPOCHS:
            raise ValueError(f"train.epochs={self.epochs} must lie between 0 (= train.steps) and {MOST_EPOCHS:,}")
        if self.epochs:
            # The steps of a preset that are not taken must not make another run.
            object.__setattr__(self, "steps", 0)
        self._check_together()

    def _check_together(self) -> None:
        """Raise ValueError for settings that exclude each other."""
        if self.sampling == "epochs" and self.curriculum.field:
            raise ValueError("train.sampling=epochs: a curriculum draws examples by their level; unset one of the two")
        if self.packing and self.curriculum.field:
            raise ValueError("train.packing=true mixes the levels of a curriculum; unset one of the two")
        if self.batch_size % self.accumulation and not self.batch_tokens:
            raise ValueError(
                f"train.batch_size={self.batch_size} must be a multiple of train.accumulation={self.accumulation}"
            )

    @property
    def trains(self) -> bool:
        """Return whether any step is taken."""
        return bool(self.steps or self.epochs)

    def taking(self, steps: int) -> "TrainSettings":
        """Return the same settings for so many steps, whatever `epochs` was."""
        return replace(self, steps=steps, epochs=0.0)

    @property
    def validation_steps(self) -> int:
        """Return the steps between two validations."""
        return self.eval_every or self.save_every
