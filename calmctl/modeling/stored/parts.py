"""What a model of frozen bases and trained parts has; storing.py adds how it is saved, loaded and published."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.bases.adapters import has_adapters
from calmctl.modeling.bases.fingerprint import fingerprint


class PartsModel(PreTrainedModel):
    """Models whose bases (an anchor, any number of augs) are frozen and stored elsewhere; their loss is their own.

    In train mode `forward` returns with `labels` the loss, and in `correct` which labels were the most likely tokens.
    """

    config: Any
    anchor: PreTrainedModel
    augs: nn.ModuleList

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are trained, by name."""
        raise NotImplementedError

    def stored_tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds, by name: the trained parameters, and whatever else they need."""
        return dict(self.trained_parameters())

    def bases(self) -> list[PreTrainedModel]:
        """Return the frozen bases, the anchor first."""
        return cast(list[PreTrainedModel], [self.anchor, *self.augs])

    def fingerprints(self) -> list[dict[str, Any]]:
        """Return what identifies each base; hashing large models takes a while.

        Raises:
            UserError: adapters of peft were put into one since.
        """
        if any(has_adapters(base) for base in self.bases()):
            raise no_adapters(self)
        return [fingerprint(base) for base in self.bases()]

    def card_sections(self) -> list[str]:
        """Return Markdown for the model card: what the model is, then what the trained parts are."""
        raise NotImplementedError

    def save_beside(self, directory: Path) -> None:
        """Write what a checkpoint needs beside weights and configuration; most models need nothing."""

    def load_beside(self, location: str | Path, tokenizers: Sequence[Callable[[], Any] | None], **hub: Any) -> None:
        """Read what `save_beside` has written.

        Args:
            tokenizers: of each base, what finds the tokenizer beside it; None where it is not to be compared.
            hub: arguments that say how to reach the hub, `revision` included.
        """

    @classmethod
    def from_bases(cls, config: Any, bases: Sequence[PreTrainedModel]) -> Self:
        """Return a model of these bases with untrained parts."""
        raise NotImplementedError


def no_adapters(model: PreTrainedModel) -> UserError:
    """Return the refusal of adapters inside a frozen base."""
    return UserError(
        f"a {type(model).__name__} takes no adapters of peft: its bases are frozen; merge adapters into a base before, "
        "or train one of the methods of `calmctl baseline`"
    )
