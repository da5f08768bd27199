"""Models of frozen bases and trained parts: saving, loading, publishing; checkpoint.py and hub.py do the work."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.adapters import has_adapters
from calmctl.modeling.fingerprint import fingerprint

# Arguments of `save_pretrained` that say how to write what a checkpoint of parts always is: one safetensors file.
WITHOUT_EFFECT = {"safe_serialization", "max_shard_size", "save_peft_format", "save_original_format", "token"}


class StoredInParts(PreTrainedModel):
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
            raise _no_adapters(self)
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

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        merge_bases: bool = False,
        fingerprints: Sequence[Mapping[str, Any]] | None = None,
        **unused: Any,
    ) -> None:
        """Save the trained parameters and a fingerprint of each base; see `checkpoint.save_parts`.

        Raises:
            TypeError: an argument of `PreTrainedModel.save_pretrained` that would change what is written.
        """
        from calmctl.modeling.checkpoint import save_parts

        if unwanted := sorted(unused.keys() - WITHOUT_EFFECT):
            raise TypeError(f"save_pretrained of {type(self).__name__} does not take {', '.join(unwanted)}")
        if is_main_process:
            save_parts(self, Path(save_directory), state_dict, merge_bases=merge_bases, fingerprints=fingerprints)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        merge_bases: bool = False,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> str:
        """Upload the checkpoint and its card to the hub; see `hub.push_parts`. `max_shard_size` has no effect.

        Raises:
            UserError: a base is not on the hub, and `merge_bases` does not upload it too.
        """
        from calmctl.modeling.hub import push_parts

        if tags:
            self.add_model_tags(tags)
        return push_parts(
            self,
            repo_id,
            merge_bases=merge_bases,
            commit_message=commit_message,
            commit_description=commit_description,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Do nothing: checkpoints name our classes anyway, and transformers would copy our source beside them."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        anchor: PreTrainedModel | str | None = None,
        augs: PreTrainedModel | str | Sequence[PreTrainedModel | str] | None = None,
        allow_different_base: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model and its bases; see `checkpoint.load_parts`.

        Returns:
            The model; with `output_loading_info` a report beside it, as of any model of transformers. It is empty, for
            a file that lacks a weight or has one too many is refused.
        """
        from calmctl.modeling.checkpoint import load_parts

        model = load_parts(
            cls, pretrained_model_name_or_path, anchor, augs, allow_different_base=allow_different_base, **kwargs
        )
        if not output_loading_info:
            return model
        return model, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}

    def add_adapter(self, *_: Any, **__: Any) -> None:
        """Refuse: bases are frozen, and what is trained is stored by name."""
        raise _no_adapters(self)

    def load_adapter(self, *_: Any, **__: Any) -> Any:
        """Refuse, as `add_adapter` does."""
        raise _no_adapters(self)


def _no_adapters(model: StoredInParts) -> UserError:
    return UserError(
        f"a {type(model).__name__} takes no adapters of peft: its bases are frozen; merge adapters into a base before, "
        "or train one of the methods of `calmctl baseline`"
    )
