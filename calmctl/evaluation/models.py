"""Models to evaluate, loaded when first needed and kept for the next task."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
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
from calmctl.modeling.stored.base_sources import check_bases_are_there


class ModelError(UserError):
    """The model cannot be evaluated on any task."""


class How(NamedTuple):
    """How a model is loaded (see `load_model`)."""

    anchor: str = ""
    augs: tuple[str, ...] = ()
    allow_different_base: bool = False
    trust_remote_code: bool = False


class Model:
    """A model with its tokenizer, by the run, folder or hub id that names it; loaded on demand."""

    def __init__(self, source: str, device: torch.device, how: How = How()) -> None:  # noqa: B008 (immutable)
        self.source, self.device, self._how = source, device, how

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer; raises ModelError if it cannot be loaded."""
        with _whatever_the_task():
            return load_tokenizer(self.source, trust_remote_code=self._how.trust_remote_code)

    @cached_property
    def shape(self) -> PreTrainedModel:
        """Return the model without weights; raises ModelError for a model that cannot be evaluated."""
        quiet_libraries()
        with _whatever_the_task():
            shape = model_without_weights(self.source, **self._how._asdict())
            if isinstance(shape.config, PartsConfig):
                check_bases_are_there(shape.config, locate(self.source)[0], self._how.anchor, self._how.augs)
            return shape

    @cached_property
    def loaded(self) -> PreTrainedModel:
        """Return the model in eval mode; raises ModelError if it cannot be loaded."""
        quiet_libraries()
        with _whatever_the_task():
            model = load_model(self.source, **self._how._asdict()).eval()
        if self.device.type == "cuda":
            model.to(self.device)
        return model

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return the fingerprints of the model and of its bases, if it is composed."""
        identity = {"source": self.source, **fingerprint(self.loaded)}
        if bases := getattr(self.loaded.config, "bases", None):
            identity["bases"] = [base["fingerprint"] for base in bases]
        return identity

    @property
    def voice(self) -> Voice:
        """Return the model as one part of a mixture."""
        return Voice(self.loaded, self.tokenizer, self.source)


@dataclass(frozen=True)
class Subject:
    """The subject of an evaluation: a model, or a mixture of two."""

    model: Model
    other: Model | None = None

    @property
    def all(self) -> list[Model]:
        """Return both models, or the only one."""
        return [self.model, self.other] if self.other else [self.model]

    @property
    def identity(self) -> dict[str, Any]:
        """Return the fingerprints of the model and, for a mixture, of the other one."""
        return self.model.identity | ({"mixed_with": self.other.identity} if self.other else {})

    @property
    def weights_sha256(self) -> str:
        """Return the checksum of the weights, joined with that of the other model."""
        return "+".join(each.identity["weights_sha256"] for each in self.all)

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters, including those of the other model."""
        return sum(parameter.numel() for each in self.all for parameter in each.loaded.parameters())


class Models:
    """The models of several evaluations, each loaded once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: dict[tuple[str, How], Model] = {}

    def of(self, source: str, how: How | None = None) -> Model:
        """Return the model of this name, the same object for the same arguments."""
        how = how or How()
        return self._known.setdefault((source, how), Model(source, self._device, how))

    def subject(self, config: EvalConfig) -> Subject:
        """Return the model or the mixture that answers in an evaluation."""
        how = How("", (), config.allow_different_base, config.trust_remote_code)
        other = self.of(config.mix, how) if config.mix else None
        return Subject(self.of(config.model, how._replace(anchor=config.anchor, augs=config.augs)), other)


@contextmanager
def _whatever_the_task() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ModelError(str(error)) from error
