"""Models that are evaluated: loaded when they are first needed, and kept for the next task."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.inference.mixture import Voice
from calmctl.modeling.bases.fingerprint import fingerprint
from calmctl.modeling.bases.sources import (
    load_model,
    load_tokenizer,
    locate,
    model_without_weights,
    quiet_libraries,
)
from calmctl.modeling.configuration import PartsConfig
from calmctl.modeling.stored.checkpoint import check_bases_are_there


class ModelError(UserError):
    """The model cannot be evaluated, whatever the task."""


class Model:
    """A model, by what a user calls it."""

    def __init__(
        self, source: str, device: torch.device, allow_different_base: bool = False, trust_remote_code: bool = False
    ) -> None:
        self.source, self.device, self._trust = source, device, trust_remote_code
        self._how = {"allow_different_base": allow_different_base, "trust_remote_code": trust_remote_code}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer; raises ModelError where the model has none."""
        with _whatever_the_task():
            return load_tokenizer(self.source, trust_remote_code=self._trust)

    @cached_property
    def shape(self) -> PreTrainedModel:
        """Return the model without weights; raises ModelError for what cannot be evaluated."""
        quiet_libraries()
        with _whatever_the_task():
            shape = model_without_weights(self.source, **self._how)
            if isinstance(shape.config, PartsConfig):
                check_bases_are_there(shape.config, locate(self.source)[0])
            return shape

    @cached_property
    def loaded(self) -> PreTrainedModel:
        """Return the model, in eval mode; raises ModelError where it cannot be loaded."""
        with _whatever_the_task():
            model = load_model(self.source, **self._how).eval()
        if self.device.type == "cuda":
            model.to(self.device)
        return model

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return the fingerprints of the model, and of the bases it was composed from."""
        identity = {"source": self.source, **fingerprint(self.loaded)}
        if bases := getattr(self.loaded.config, "bases", None):
            identity["bases"] = [base["fingerprint"] for base in bases]
        return identity

    @property
    def voice(self) -> Voice:
        """Return the model as one of two that write together."""
        return Voice(self.loaded, self.tokenizer, self.source)


@dataclass(frozen=True)
class Subject:
    """What answers: a model, or two that write together."""

    model: Model
    other: Model | None = None

    @property
    def all(self) -> list[Model]:
        """Return it and the other."""
        return [self.model, self.other] if self.other else [self.model]

    @property
    def identity(self) -> dict[str, Any]:
        """Return what a result says of the model, and of the other."""
        return self.model.identity | ({"mixed_with": self.other.identity} if self.other else {})

    @property
    def weights_sha256(self) -> str:
        """Return the checksums of all weights that answer."""
        return "+".join(each.identity["weights_sha256"] for each in self.all)

    @property
    def num_parameters(self) -> int:
        """Return how many parameters answer, those of the other model included."""
        return sum(parameter.numel() for each in self.all for parameter in each.loaded.parameters())


class Models:
    """The models of several evaluations, each loaded once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: dict[tuple[str, bool, bool], Model] = {}

    def of(self, source: str, allow_different_base: bool = False, trust_remote_code: bool = False) -> Model:
        """Return a model."""
        key = source, allow_different_base, trust_remote_code
        return self._known.setdefault(key, Model(source, self._device, allow_different_base, trust_remote_code))


@contextmanager
def _whatever_the_task() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ModelError(str(error)) from error
