"""Settings of the training data for reasoning, and the constraints between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from data_builders.benchmarks.reasoning import ASKED, Form
from data_builders.errors import UserError, require_at_least

_CHOICES = {
    "mix": ("commonsense", "arithmetic"),
    "form": tuple(ASKED),
    "loss_on": ("completion", "all"),
    "overlaps": ("remove", "keep"),
}


@dataclass(frozen=True)
class ReasoningDataConfig:
    """Settings of a mix of training sets of LLM-Adapters."""

    seed: int = field(default=0, metadata={"may_differ": True})
    """Draws the rows that are held out for validation."""
    mix: Literal["commonsense", "arithmetic"] = "commonsense"
    """`commonsense`: SET/train.json of every commonsense set that the folder has; `arithmetic`: mawps/trainset.json,
    AQuA/train.json if it is there, and `gsm8k`."""
    data_folder: str | None = field(default=None, metadata={"may_differ": True})
    """Folder of the sets, laid out as `dataset` of LLM-Adapters; its test questions are kept out of the mix."""
    gsm8k: str | None = None
    """Folder or hub id of GSM8K as published by its authors (train.jsonl), for `arithmetic`; null: without it."""
    files: tuple[str, ...] = ()
    """Further files of rows with `instruction` and `output`, such as math_10k.json."""
    form: Form = "exact"
    """White space of the prompts: `exact` as the code of LLM-Adapters writes it, `clean` without indentation."""
    loss_on: Literal["completion", "all"] = "completion"
    """Rows of `prompt` and `completion`, or of `text`: then the prompt is trained on too, as LLM-Adapters does."""
    overlaps: Literal["remove", "keep"] = "remove"
    """What becomes of rows that ask a test question; both ways the manifest counts and `overlaps.jsonl` lists them."""
    validation_rows: int = 120
    """Rows that are held out for validation."""

    def __post_init__(self) -> None:
        """Raise UserError if a setting is out of range or does not fit the others."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(choices)}")
        require_at_least("validation_rows", self.validation_rows, 0)
        if self.gsm8k is not None and self.mix != "arithmetic":
            raise UserError(f"gsm8k: it is part of mix=arithmetic only, not of {self.mix}; leave it out")
