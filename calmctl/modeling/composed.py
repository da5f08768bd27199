"""The composed model: a frozen anchor, frozen augs and the bridges between them, as one Hugging Face model.

Shapes: (batch, seq) for ids and masks, (batch, seq, dim) for states.
"""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.generic import can_return_tuple

from calmctl.errors import UserError
from calmctl.modeling.alignment import prompts_before
from calmctl.modeling.bridge import Bridge
from calmctl.modeling.cache import ComposedCache
from calmctl.modeling.calling import CACHE, cache_of, either_cache
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.decoder import ComposedModel, ComposedPreTrainedModel
from calmctl.modeling.generating import ComposedGenerationMixin
from calmctl.modeling.kept_states import KeptStates
from calmctl.modeling.loss import completion_loss, frozen_head_loss
from calmctl.modeling.own_masks import why_no_own_masks
from calmctl.modeling.residual_streams import calibrate
from calmctl.modeling.stored.card import composition_sections
from calmctl.modeling.stored.parts import ComposedOutput
from calmctl.modeling.stored.storing import StoredInParts
from calmctl.modeling.tokenizers.own import OwnTokenizer, check_unchanged, store_tokenizers, stored_tokenizers
from calmctl.modeling.views import head_of, keep_positions


class ComposedModelForCausalLM(ComposedGenerationMixin, ComposedPreTrainedModel, StoredInParts):
    """Anchor + augs + bridges; logits are the anchor's (paper section 3.1).

    The bases are frozen and stay in eval mode; only the bridges (`composition_parameters`) are trained. `model` is the
    part below the anchor's LM head, a `ComposedModel` that shares all modules with this one.
    """

    # Tells transformers' Trainer that `forward` divides the summed loss by `num_items_in_batch` itself.
    accepts_loss_kwargs = True

    def __init__(
        self,
        config: ComposedConfig,
        anchor: PreTrainedModel | None = None,
        augs: Sequence[PreTrainedModel] | None = None,
        own_tokenizers: Sequence[OwnTokenizer | None] | None = None,
    ) -> None:
        super().__init__(config)
        if anchor is None:
            anchor = AutoModelForCausalLM.from_config(config.anchor_config())
        if augs is None:
            augs = [AutoModelForCausalLM.from_config(aug) for aug in config.aug_configs()]
        decoder = ComposedModel(config, anchor, augs)
        self._take_tokenizers(own_tokenizers if own_tokenizers is not None else [None] * len(augs), decoder)
        # Not registered as a submodule: anchor, augs and bridges are, and every parameter must have one name.
        self.__dict__["_decoder"] = decoder
        self.anchor, self.augs, self.bridges = decoder.anchor, decoder.augs, decoder.bridges
        self.connections = decoder.connections
        self.generation_config = copy.deepcopy(anchor.generation_config)
        self.post_init()
        # Checkpoints never hold the bases' weights; transformers' Trainer must not report them as missing.
        self._keys_to_ignore_on_save = self.state_dict().keys() - self.stored_tensors().keys()
        self.eval()

    def _take_tokenizers(self, own: Sequence[OwnTokenizer | None], decoder: ComposedModel) -> None:
        """Keep the tokenizers of augs that do not share the anchor's (for saving) and build their segmenters."""
        self.own_tokenizers = list(own)
        decoder.segmenters = [
            each.segmenter(settings["kind"]) if each is not None and settings is not None else None
            for each, settings in zip(own, self.config.segmentations, strict=True)
        ]

    @property
    def model(self) -> ComposedModel:
        """Return the model below the LM head, with the current submodules (which may be replicas or wrappers)."""
        decoder = self.__dict__["_decoder"]
        for name in decoder._modules:
            decoder._modules[name] = self._modules[name]
        return decoder

    def bridge_of(self, aug_index: int, bridge_index: int) -> Bridge:
        """Return one bridge; `bridge_index` counts the aug's connections."""
        return cast(Bridge, cast(nn.ModuleList, self.bridges[aug_index])[bridge_index])

    # The forward pass.

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: ComposedCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        prompt_lengths: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        cache: ComposedCache | None = None,
        cu_seq_lens_q: Tensor | None = None,
        cu_seq_lens_k: Tensor | None = None,
        max_length_q: int | None = None,
        max_length_k: int | None = None,
        seq_idx: Tensor | None = None,
        aug_tokens: Sequence[Tensor | None] | None = None,
        kept_states: KeptStates | None = None,
    ) -> ComposedOutput:
        """Run every aug on the tokens, then the anchor with the bridges.

        Args:
            input_ids: (batch, seq) new tokens of the anchor; augs that share its tokenizer read them too.
            attention_mask: (batch, past + seq), 1 = a real token.
            position_ids: (batch, seq); default: counted from the attention mask. Without a mask and a cache, positions
                that restart begin another document of a packed row; documents do not attend to each other (if the bases
                support packed rows: OPT, BLOOM and Falcon do not).
            inputs_embeds: refused; each base embeds the tokens itself.
            labels: (batch, seq), -100 = no loss. In train mode only labelled positions reach the LM head, in chunks,
                and `logits` is None; in eval mode the logits are complete.
            logits_to_keep: number of last positions to compute logits for (0 = all), or indices of positions.
            prompt_lengths: (batch,) tokens, left padding included, that augs which read prompts only (`aug_reads`) may
                read. Default: up to the first label; outside training, without labels, the whole first input.
            num_items_in_batch: number of labels to divide the summed loss by (gradient accumulation).
            output_hidden_states, output_attentions: return the anchor's, bridge updates included; None = as configured.
            past_key_values, cache: two names of one argument.
            cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k, seq_idx: document boundaries of a packed row, from
                transformers' collators; `position_ids` default to those of `cu_seq_lens_q`, the others are ignored.
            aug_tokens: per aug with its own tokenizer, the tokens that it reads of whole rows, if found beforehand
                (`Segmenter.read`, `aug_tokens.stacked`); used without a cache only.
            kept_states: result of `model.states_to_keep` for these rows, reused instead of computed; without a cache
                only. Hidden states and attentions below the first bridge are then not the real ones.

        Raises:
            UserError: no `input_ids`, a cache that is not a `ComposedCache` or is full, more tokens than a base has
                positions for, a mask of the wrong shape, a non-empty cache under gradient checkpointing, packed rows
                with augs that read prompts only, or such augs in training without labels or prompt lengths.
        """
        past_key_values = either_cache(past_key_values, cache)
        if labels is not None and prompt_lengths is None and self.config.aug_reads == "prompt":
            begins = past_key_values is None or not past_key_values.get_seq_length()
            prompt_lengths = prompts_before(labels) if begins else None
        decoded = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            prompt_lengths=prompt_lengths,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            cu_seq_lens_q=cu_seq_lens_q,
            aug_tokens=aug_tokens,
            kept_states=kept_states,
            return_dict=True,
            **{CACHE: past_key_values},
        )
        states, device = decoded.last_hidden_state, cast(Tensor, input_ids).device
        facts: dict[str, Any] = {
            CACHE: cache_of(decoded),
            "hidden_states": decoded.hidden_states,
            "attentions": decoded.attentions,
        }
        if labels is not None and self.training:
            loss, correct = frozen_head_loss(self.anchor, states, labels, num_items_in_batch)
            return ComposedOutput(loss=loss.to(device), correct=correct.to(device), **facts)
        logits = head_of(self.anchor)(keep_positions(states, logits_to_keep)).to(device)
        if labels is not None:
            facts["loss"] = completion_loss(logits[:, :-1], labels[:, 1:], num_items_in_batch)
        return ComposedOutput(logits=logits, **facts)

    # The Hugging Face model interface.

    def new_cache(self, max_cache_len: int | None = None) -> ComposedCache:
        """Return an empty cache for this model; `max_cache_len` makes it static, with room for that many tokens."""
        return self.model.new_cache(max_cache_len)

    def train(self, mode: bool = True) -> Self:
        """Set the bridges' mode; the bases always stay in eval mode (no dropout in frozen models)."""
        self.training = mode
        self.model.train(mode)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the bridges are trained; the bases stay frozen."""
        self.bridges.requires_grad_(requires_grad)
        return self

    @property
    def gradient_checkpointing(self) -> bool:  # type: ignore[override]
        """Return whether the anchor's activations are computed again in the backward pass."""
        return self.model.gradient_checkpointing

    def _set_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        self.model._set_gradient_checkpointing(*args, **kwargs)

    def enable_input_require_grads(self) -> None:
        """Do nothing; see `RecomputingMixin`."""

    def composition_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters (Theta_C of the paper) by name."""
        return {f"bridges.{name}": parameter for name, parameter in self.bridges.named_parameters()}

    trained_parameters = composition_parameters

    def stored_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint: the bridges' parameters and what `calibrate` measured."""
        known = {f"bridges.{name}": buffer for name, buffer in self.bridges.named_buffers()}
        return {**self.composition_parameters(), **known}

    def calibrate(self, batches: Iterable[dict[str, Any]]) -> None:
        """Measure mean and deviation of the residual streams that bridges standardise; call once, before training.

        Args:
            batches: arguments of `forward`; some thirty of the examples to train on suffice.
        """
        standardised = {
            bridge: settings is None
            for each, settings in zip(self.bridges, self.config.segmentations, strict=True)
            for bridge in cast(nn.ModuleList, each)
            if bridge.aug_stream is not None
        }
        if standardised:
            calibrate(self, standardised, batches)

    def card_sections(self) -> list[str]:
        """Return the model card's sections on the composition."""
        trainable = sum(parameter.numel() for parameter in self.composition_parameters().values())
        markers = [own.marker_names() if own is not None else None for own in self.own_tokenizers]
        return composition_sections(self.config, self.bridge_of(0, 0).num_heads, trainable, markers)

    @classmethod
    def from_bases(cls, config: ComposedConfig, bases: Sequence[PreTrainedModel]) -> Self:
        """Return a composed model of these bases, the anchor first, with untrained bridges."""
        return cls(config, bases[0], bases[1:])

    def save_beside(self, directory: Path) -> None:
        """Write the tokenizers of augs that do not share the anchor's.

        Raises:
            UserError: a tokenizer is unknown (the model was built from a configuration alone).
        """
        for index, (own, settings) in enumerate(zip(self.own_tokenizers, self.config.segmentations, strict=True)):
            if settings is not None and own is None:
                raise UserError(
                    f"aug {index} has a tokenizer of its own, which a model made of a configuration only does not know:"
                    " it could not be loaded again"
                )
        store_tokenizers(self.own_tokenizers, directory)

    def load_beside(self, location: str | Path, tokenizers: Sequence[Any], **hub: Any) -> None:
        """Load the tokenizers stored with this model and compare them with the bases'; see `PartsModel.load_beside`."""
        own = stored_tokenizers(self.config.segmentations, location, **hub)
        compared = [(each, "aug", find) for each, find in zip(own, tokenizers[1:], strict=True) if each is not None]
        compared += [(each, "anchor", tokenizers[0]) for each, *_ in compared[:1]]  # every aug stores the same one
        for each, role, find in compared:
            if not each.is_given and find is not None and (found := find()) is not None:
                check_unchanged(each, role, found)
        for aug, settings in zip(self.augs, self.config.segmentations, strict=True):
            if settings is not None and settings["kind"] == "own" and (reason := why_no_own_masks(aug)):
                raise UserError(f"{location}: an aug, a {type(aug).__name__}, tokenizes texts itself, but {reason}")
        self._take_tokenizers(own, self.__dict__["_decoder"])

    def get_decoder(self) -> ComposedModel:
        """Return the model below the LM head; `get_output_embeddings()` turns its last hidden states into logits."""
        return self.model

    def get_input_embeddings(self) -> nn.Module:
        """Return the anchor's token embedding."""
        return self.anchor.get_input_embeddings()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Refuse: several bases may read the same ids, so resize them before composing."""
        raise UserError("a composed model cannot be resized; resize the anchor and the augs, then compose them")

    def get_output_embeddings(self) -> nn.Module:
        """Return the anchor's LM head."""
        return self.anchor.get_output_embeddings()

    lm_head = property(get_output_embeddings)
