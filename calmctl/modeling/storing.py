"""Saving, loading and publishing as methods of the composed model; the work is done in checkpoint.py and hub.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from calmctl.modeling.composed import ComposedModelForCausalLM

# Arguments of `save_pretrained` that say how to write what a checkpoint of bridges always is: one safetensors file.
WITHOUT_EFFECT = {"safe_serialization", "max_shard_size", "save_peft_format", "save_original_format", "token"}


class StoredInParts(PreTrainedModel):
    """`save_pretrained`, `from_pretrained` and `push_to_hub` of models whose bases are stored elsewhere."""

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        merge_bases: bool = False,
        **unused: Any,
    ) -> None:
        """Save the composition parameters and a fingerprint of each base; see `checkpoint.save_composed`.

        Raises:
            TypeError: an argument of `PreTrainedModel.save_pretrained` that would change what is written.
        """
        from calmctl.modeling.checkpoint import save_composed

        if unwanted := sorted(unused.keys() - WITHOUT_EFFECT):
            raise TypeError(f"save_pretrained of a composed model does not take {', '.join(unwanted)}")
        if is_main_process:
            save_composed(
                cast("ComposedModelForCausalLM", self), Path(save_directory), state_dict, merge_bases=merge_bases
            )

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
        """Upload the checkpoint and its card to the hub; see `hub.push_composed`. `max_shard_size` has no effect.

        Raises:
            UserError: a base is not on the hub, and `merge_bases` does not upload it too.
        """
        from calmctl.modeling.hub import push_composed

        if tags:
            self.add_model_tags(tags)
        return push_composed(
            cast("ComposedModelForCausalLM", self),
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
        **kwargs: Any,
    ) -> "ComposedModelForCausalLM":
        """Load a composed model; see `checkpoint.load_composed`."""
        from calmctl.modeling.checkpoint import load_composed

        return load_composed(
            pretrained_model_name_or_path, anchor, augs, allow_different_base=allow_different_base, **kwargs
        )
