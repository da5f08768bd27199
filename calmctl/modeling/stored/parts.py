"""Base class of models of frozen bases and trained parts, and their output; storing.py adds saving and loading."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from calmctl.errors import UserError
from calmctl.modeling.bases.adapters import has_adapters
from calmctl.modeling.bases.fingerprint import fingerprint


@dataclass
class ComposedOutput(CausalLMOutputWithPast):
    """Output of a forward pass.

    Attributes:
        correct: (labels,) while training: whether each label, in row-major order, was the most likely token.
    """

    correct: Tensor | None = None


class PartsModel(PreTrainedModel):
    """A model whose bases (an anchor, any number of augs) are frozen and stored elsewhere; it computes its own loss.

    In train mode `forward` with `labels` returns the loss, and in `correct` which labels were the most likely tokens.
    """

    config: Any
    anchor: PreTrainedModel
    augs: nn.ModuleList

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        raise NotImplementedError

    def stored_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint by name: the trained parameters and any buffers that belong to them."""
        return dict(self.trained_parameters())

    def new_cache(self) -> Cache:
        """Return an empty cache for this model."""
        raise NotImplementedError

    def bases(self) -> list[PreTrainedModel]:
        """Return the frozen bases, the anchor first."""
        return cast(list[PreTrainedModel], [self.anchor, *self.augs])

    def fingerprints(self) -> list[dict[str, Any]]:
        """Return the fingerprint of each base; hashing large models takes a while.

        Raises:
            UserError: a base has got adapters of peft.
        """
        if any(has_adapters(base) for base in self.bases()):
            raise no_adapters(self)
        return [fingerprint(base) for base in self.bases()]

    def card_sections(self) -> list[str]:
        """Return Markdown for the model card: an introduction, then the sections on the trained parts."""
        raise NotImplementedError

    def save_beside(self, directory: Path) -> None:
        """Write any further files of a checkpoint; most models need none."""

    def load_beside(self, location: str | Path, tokenizers: Sequence[Callable[[], Any] | None], **hub: Any) -> None:
        """Read the files that `save_beside` has written.

        Args:
            tokenizers: per base, a function that loads the tokenizer beside it; None = do not compare it.
            hub: hub arguments of `from_pretrained`, `revision` included.
        """

    @classmethod
    def from_bases(cls, config: Any, bases: Sequence[PreTrainedModel]) -> Self:
        """Return a model of these bases with untrained parts."""
        raise NotImplementedError


def no_adapters(model: PreTrainedModel) -> UserError:
    """Return the error for adapters in a frozen base."""
    return UserError(
        f"a {type(model).__name__} takes no adapters of peft: its bases are frozen; merge adapters into a base before, "
        "or train one of the methods of `calmctl baseline`"
    )
