"""The adapted model: a frozen anchor with trained adapters in it, as one Hugging Face model."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils.generic import can_return_tuple

from calmctl.baselines import prompt
from calmctl.baselines.configuration import AdaptedConfig
from calmctl.baselines.methods import ADAPTERS, stored_options
from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bases.fingerprint import fingerprint
from calmctl.modeling.calling import CACHE, cache_argument, cache_of, either_cache
from calmctl.modeling.generating import put_own_cache
from calmctl.modeling.loss import completion_loss, frozen_head_loss
from calmctl.modeling.recomputation import RecomputingMixin
from calmctl.modeling.stored.parts import ComposedOutput
from calmctl.modeling.stored.storing import StoredInParts
from calmctl.version import VERSION


class AdaptedModelForCausalLM(RecomputingMixin, GenerationMixin, StoredInParts):
    """A frozen anchor with adapters of one of the methods in `methods.ADAPTERS`.

    The anchor stays in eval mode; only the adapters' parameters are trainable (`trained_parameters`). The adapters are
    inserted into the anchor itself, so no other model may use it any more.
    """

    config_class = AdaptedConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    accepts_loss_kwargs = True

    def __init__(self, config: AdaptedConfig, anchor: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.anchor = anchor if anchor is not None else AutoModelForCausalLM.from_config(config.anchor_config())
        self.augs = nn.ModuleList()
        self.method = ADAPTERS[config.method]
        self.anchor.requires_grad_(False)
        # Not what the method inserts: adapters may have dropout.
        self._frozen = list(self.anchor.modules())
        options = stored_options(config.method, config.options)
        self.adapters = self.method.attach(self.anchor, config.sizes, options)
        self._prompts = [cast(prompt.Prompt, adapter) for adapter in self.adapters.values() if self.method.is_prompt]
        self._trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        self.generation_config = copy.deepcopy(self.anchor.generation_config)
        self.post_init()
        # Checkpoints never hold frozen weights: the Trainer must not report them as missing.
        self._keys_to_ignore_on_save = self.state_dict().keys() - set(self._trained)
        self.eval()

    def init_weights(self) -> None:
        """Do nothing: the anchor brings its weights and adapters initialise themselves."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        cache: Cache | None = None,
    ) -> ComposedOutput:
        """Run the anchor with its adapters.

        Args:
            input_ids: (batch, seq) new tokens.
            attention_mask: (batch, past + seq), 1 = real token, 0 = padding.
            position_ids: (batch, seq); counted from the attention mask when not given.
            labels: (batch, seq), -100 = no loss. In training mode only the labelled positions reach the LM head, a
                chunk at a time, and `logits` is None; in eval mode the logits are complete.
            num_items_in_batch: number of labels to divide the summed loss by (gradient accumulation).
            past_key_values, cache: two names of one argument.

        Raises:
            UserError: no `input_ids`, or tokens in a cache under gradient checkpointing.
        """
        if input_ids is None:
            raise UserError("an adapted model needs input_ids")
        layers.keep_in_eval_mode(self._frozen)
        past_key_values = either_cache(past_key_values, cache)
        if use_cache is None:
            use_cache = not self.training and self.config.use_cache
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if recompute:
            # Recomputed layers would write into the cache a second time.
            if past_key_values is not None and past_key_values.get_seq_length():
                raise UserError("gradient checkpointing cannot go on from a cache; disable one of them")
            use_cache, past_key_values = False, None
        batch_size, length = input_ids.shape
        if position_ids is None:
            past = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
            position_ids = layers.position_ids_from(attention_mask, batch_size, past, length, input_ids.device)
        arguments = layers.arguments_of(self.anchor, input_ids, attention_mask, position_ids)
        if use_cache and past_key_values is None and self._prompts:
            past_key_values = self.new_cache()
        arguments |= {cast(str, cache_argument(self.anchor)): past_key_values, "use_cache": use_cache}
        before = 0
        for virtual in self._prompts:
            arguments, before = prompt.with_prompt(self.anchor, virtual, arguments)
        with self.recomputing(layers.decoder_layers(self.anchor) if recompute else ()):
            if labels is not None and self.training:
                states = layers.decoder(self.anchor)(**arguments).last_hidden_state[:, before:]
                loss, correct = frozen_head_loss(self.anchor, states, labels, num_items_in_batch)
                return ComposedOutput(loss=loss, correct=correct)
            for name, given in (
                ("output_hidden_states", output_hidden_states),
                ("output_attentions", output_attentions),
            ):
                if wanted := getattr(self.config, name) if given is None else given:
                    arguments[name] = wanted
            if before:
                # Virtual tokens have no place in logits and states.
                if isinstance(logits_to_keep, Tensor):  # places, from the end if negative, or a mask of them
                    logits_to_keep = torch.arange(before, before + length, device=input_ids.device)[logits_to_keep]
                else:
                    logits_to_keep = min(logits_to_keep or length, length)
            answer = self.anchor(**arguments, logits_to_keep=logits_to_keep)
        states = answer.hidden_states
        facts: dict[str, Any] = {
            CACHE: past_key_values if self._prompts else cache_of(answer),
            "hidden_states": tuple(each[:, before:] for each in states) if before and states else states,
            "attentions": answer.attentions,
        }
        if labels is not None:
            facts["loss"] = completion_loss(answer.logits[:, :-1], labels[:, 1:], num_items_in_batch)
        return ComposedOutput(logits=answer.logits, **facts)

    # Generation.

    def new_cache(self) -> Cache:
        """Return an empty cache for this model."""
        if self._prompts:
            return prompt.new_cache(self.anchor, self._prompts[0])
        return DynamicCache(config=layers.text_config(self.anchor.config))

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *others: Any
    ) -> None:
        """Create a cache of the model's own where virtual tokens need one."""
        if self._prompts:
            put_own_cache(self.new_cache, generation_config, model_kwargs, ("dynamic",))
        else:
            super()._prepare_cache_for_generation(generation_config, model_kwargs, *others)  # type: ignore[misc]

    # Saving and loading.

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the adapters by name."""
        return {name: self.get_parameter(name) for name in self._trained}

    def fingerprints(self) -> list[dict[str, Any]]:
        """Return the fingerprint of the anchor as it was before adapters were inserted."""
        frozen = sum(parameter.numel() for parameter in self.anchor.parameters() if not parameter.requires_grad)
        return [fingerprint(self.anchor, self.method.own_name) | {"num_parameters": frozen}]

    def merged(self) -> PreTrainedModel:
        """Return a plain model that computes the same, without changing this one.

        Raises:
            UserError: the method cannot be merged.
        """
        if self.method.merged is None:
            raise unmergeable(self.config.method)
        return self.method.merged(self.anchor)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        merge_bases: bool = False,
        **unused: Any,
    ) -> None:
        """Save the adapters and a fingerprint of the anchor, or with `merge_bases` the merged, plain model.

        Raises:
            UserError: the method cannot be merged.
        """
        if merge_bases and is_main_process:
            self.merged().save_pretrained(save_directory)
        elif not merge_bases:
            super().save_pretrained(save_directory, is_main_process, state_dict, **unused)

    @classmethod
    def from_bases(cls, config: AdaptedConfig, bases: Sequence[PreTrainedModel]) -> Self:
        """Return an adapted model of an anchor, with untrained adapters."""
        return cls(config, bases[0])

    def card_sections(self) -> list[str]:
        """Return the model card's sections about the adapters."""
        trainable = sum(parameter.numel() for parameter in self.trained_parameters().values())
        rows = "".join(f"| `{name}` | {size} |\n" for name, size in self.config.sizes.items())
        return [
            f"A frozen language model with trained adapters ({self.method.title}), made with calmctl {VERSION}.\n",
            "## Adapters\n",
            f"Trainable parameters: {trainable:,}.\n\n| module | {self.method.size} |\n| --- | --- |\n{rows}",
        ]

    # The interface of a Hugging Face model.

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the anchor always stays in eval mode (no dropout in frozen models)."""
        super().train(mode)
        layers.keep_in_eval_mode(self._frozen)
        return self

    def get_decoder(self) -> nn.Module:
        """Return the anchor's decoder, with the adapters in it; virtual tokens come before what it reads."""
        if self._prompts:
            return prompt.PromptedDecoder(self.anchor, self._prompts[0])
        return layers.decoder(self.anchor)

    model = property(get_decoder)

    def get_input_embeddings(self) -> nn.Module:
        """Return the anchor's token embedding."""
        return self.anchor.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the anchor's LM head."""
        return self.anchor.get_output_embeddings()


def unmergeable(method: str) -> UserError:
    """Return the error for a method whose adapters cannot be merged."""
    can = ", ".join(name for name, adapter in ADAPTERS.items() if adapter.merged is not None)
    return UserError(f"{method} adapters cannot be merged into a plain model; {can} can")
