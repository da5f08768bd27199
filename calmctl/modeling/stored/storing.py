"""The Hugging Face interface of models stored in parts (`save_pretrained`, ...) to checkpoint.py and hub.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from calmctl.modeling.stored.checkpoint import load_parts, save_parts
from calmctl.modeling.stored.hub import push_folder, saved_for_upload
from calmctl.modeling.stored.parts import PartsModel, no_adapters

# Arguments of `save_pretrained` that change nothing here: the checkpoint is always one safetensors file.
WITHOUT_EFFECT = {"safe_serialization", "max_shard_size", "save_peft_format", "save_original_format", "token"}


class StoredInParts(PartsModel):
    """A model of frozen bases and trained parts that is saved, loaded and published without its bases."""

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
            TypeError: an unsupported argument of `PreTrainedModel.save_pretrained`.
        """
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
        """Upload the checkpoint and its card to the hub; see `hub.push_folder`. `max_shard_size` has no effect.

        Raises:
            UserError: a base is not on the hub, and `merge_bases` does not upload it.
        """
        if tags:
            self.add_model_tags(tags)
        with saved_for_upload(self, repo_id, merge_bases) as folder:
            return push_folder(
                folder,
                repo_id,
                commit_message=commit_message,
                commit_description=commit_description,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Do nothing: checkpoints already name our classes, and transformers would copy our source beside them."""

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
            The model; with `output_loading_info` also a report, as for any model of transformers. It is always empty: a
                file with missing or unexpected weights is refused.
        """
        model = load_parts(
            cls, pretrained_model_name_or_path, anchor, augs, allow_different_base=allow_different_base, **kwargs
        )
        if not output_loading_info:
            return model
        return model, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}

    def add_adapter(self, *_: Any, **__: Any) -> None:
        """Refuse: the bases are frozen, and trained parameters are stored by name."""
        raise no_adapters(self)

    def load_adapter(self, *_: Any, **__: Any) -> Any:
        """Refuse, as `add_adapter` does."""
        raise no_adapters(self)
