"""The composed model: a frozen anchor, frozen augs and the bridges between them, as one Hugging Face model.

Shapes: (batch, seq) for ids and masks, (batch, seq, dim) for states.
"""

import copy
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.generic import can_return_tuple

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.alignment import bridge_mask, packed_documents, prompt_to_read, same_tokenizer_visible
from calmctl.modeling.bridge import Bridge, BridgeConfig
from calmctl.modeling.cache import ComposedCache
from calmctl.modeling.calling import CACHE, cache_argument, either_cache
from calmctl.modeling.card import composition_sections
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.connections import Connection
from calmctl.modeling.generating import ComposedGenerationMixin
from calmctl.modeling.hooks import ForwardPass, install_hooks, new_pass
from calmctl.modeling.loss import completion_loss, frozen_head_loss
from calmctl.modeling.outputs import ComposedOutput
from calmctl.modeling.recomputation import RecomputingMixin
from calmctl.modeling.storing import StoredInParts


class ComposedModelForCausalLM(RecomputingMixin, ComposedGenerationMixin, StoredInParts):
    """Anchor + augs + bridges; logits are the anchor's (paper section 3.1).

    The bases are frozen and stay in eval mode. The only trainable parameters are those of the bridges
    (`composition_parameters`). Augs run without gradients, without their LM heads and only up to the last layer that
    is tapped. Bridges act through hooks on the anchor's layers, so any decoder-only model can be a base.
    """

    config_class = ComposedConfig
    base_model_prefix = "anchor"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # transformers' Trainer asks: `forward` divides the summed loss by `num_items_in_batch` itself.
    accepts_loss_kwargs = True

    def __init__(
        self,
        config: ComposedConfig,
        anchor: PreTrainedModel | None = None,
        augs: Sequence[PreTrainedModel] | None = None,
    ) -> None:
        super().__init__(config)
        self.anchor = anchor if anchor is not None else AutoModelForCausalLM.from_config(config.anchor_config())
        if augs is None:
            augs = [AutoModelForCausalLM.from_config(aug) for aug in config.aug_configs()]
        self.augs = nn.ModuleList(augs)
        self.connections: list[tuple[Connection, ...]] = [
            tuple(Connection(*pair) for pair in pairs) for pairs in config.connections
        ]
        bridge_config = BridgeConfig(**config.bridge)
        self.bridges = nn.ModuleList(
            nn.ModuleList(self._new_bridge(bridge_config, aug, pair) for pair in pairs)
            for aug, pairs in zip(augs, self.connections, strict=True)
        )
        self.anchor.requires_grad_(False)
        self.augs.requires_grad_(False)
        self.generation_config = copy.deepcopy(self.anchor.generation_config)
        # What hooks know their model by: a shallow copy keeps it, a deep copy gets another together with its hooks.
        self.identity = object()
        install_hooks(self, augs)
        self.post_init()
        # transformers' Trainer does not report as missing from a checkpoint what is never in one.
        self._keys_to_ignore_on_save = self.state_dict().keys() - self.composition_parameters().keys()
        self.eval()

    def init_weights(self) -> None:
        """Do nothing: the bases bring their weights and bridges initialise themselves."""

    def _new_bridge(self, config: BridgeConfig, aug: PreTrainedModel, pair: Connection) -> Bridge:
        anchor_config = self.anchor.config
        bridge = Bridge(
            config, layers.hidden_size(aug.config), layers.hidden_size(anchor_config), layers.num_heads(anchor_config)
        )
        return bridge.to(device=layers.device_of(layers.decoder_layers(self.anchor)[pair.anchor_layer]))

    def bridge_of(self, aug_index: int, bridge_index: int) -> Bridge:
        """Return the bridge of an aug's connection."""
        return cast(Bridge, cast(nn.ModuleList, self.bridges[aug_index])[bridge_index])

    # The forward pass.

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: ComposedCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        prompt_lengths: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        cache: ComposedCache | None = None,
    ) -> ComposedOutput:
        """Run every aug on the tokens, then the anchor with the bridges.

        Args:
            input_ids: (batch, seq) new tokens; both models read the same ones.
            attention_mask: (batch, past + seq), 1 = a real token.
            position_ids: (batch, seq); counted from the attention mask when not given. Without a mask and a cache,
                positions that start again begin another document of a packed row, which sees nothing of the others
                (where the bases read packed rows so: OPT, BLOOM and Falcon do not).
            labels: (batch, seq), -100 = no loss. While training only the labelled rows reach the LM head, a chunk at
                a time, and `logits` is None; in eval mode the logits are complete.
            prompt_lengths: (batch,) tokens, padding on the left included, that augs which read prompts only
                (`aug_reads`) may read; found from the labels, or taken to be the whole first input, when not given.
            num_items_in_batch: the number of labels to divide the summed loss by (gradient accumulation).
            output_hidden_states, output_attentions: return the anchor's, with what the bridges added (not with the
                loss while training).
            past_key_values, cache: two names of one argument.

        Raises:
            UserError: no `input_ids`, a cache that is not a `ComposedCache`, a mask of another shape, tokens in a cache
            under gradient checkpointing, or packed rows and augs that read prompts only.
        """
        if input_ids is None:
            raise UserError("a composed model needs input_ids: anchor and augs each embed the tokens themselves")
        past_key_values = either_cache(past_key_values, cache)
        if past_key_values is not None and not isinstance(past_key_values, ComposedCache):
            raise UserError(f"past_key_values must be a ComposedCache, got {type(past_key_values).__name__}")
        if use_cache is None:
            use_cache = not self.training and self.config.use_cache
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if recompute:
            # What is computed again must not write into a cache a second time.
            if past_key_values is not None and past_key_values.get_seq_length():
                raise UserError("gradient checkpointing cannot go on from a cache; disable one of them")
            use_cache, past_key_values = False, None
        if use_cache and past_key_values is None:
            past_key_values = self.new_cache()
        batch_size, length = input_ids.shape
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if attention_mask is not None and attention_mask.shape != (batch_size, past + length):
            raise UserError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; {past} cached and {length} new tokens "
                f"need {(batch_size, past + length)}"
            )
        padding = attention_mask
        if padding is not None and not torch.compiler.is_compiling() and padding.all():
            padding = None  # Every token is real: the bridges need no mask.
        documents = None
        if position_ids is None:
            position_ids = layers.position_ids_from(padding, batch_size, past, length, input_ids.device)
        elif attention_mask is None and past_key_values is None:
            documents = packed_documents(position_ids.expand(batch_size, length))
        num_read = length
        if self.config.aug_reads == "prompt":
            if documents is not None:
                raise UserError("augs that read prompts only cannot read packed rows; give one document a row")
            read = past_key_values.num_read if past_key_values is not None else 0
            prompt_lengths, num_read = prompt_to_read(prompt_lengths, labels, batch_size, past, length, read)
            prompt_lengths = prompt_lengths.to(input_ids.device)
        else:
            prompt_lengths = None
        # The fused kernel knows this case by itself: a square of new tokens, or one token that sees all.
        is_causal = padding is None and documents is None and prompt_lengths is None and (length == 1 or past == 0)
        first = min(pair.anchor_layer for pairs in self.connections for pair in pairs)
        above = layers.decoder_layers(self.anchor)[first + 1 :]
        with new_pass(self) as current, self.recomputing(above if recompute else ()):
            current.positions = position_ids.expand(batch_size, length)
            visible = same_tokenizer_visible(batch_size, past, length, input_ids.device, prompt_lengths)
            for aug_index in range(len(self.augs)):
                self._read_aug(current, aug_index, input_ids[:, :num_read], attention_mask, past_key_values)
                aug_length = current.keys_values[aug_index, 0][0].shape[-2]
                needs_mask = not is_causal or aug_length != past + length
                current.masks.append(bridge_mask(visible, padding, aug_length, documents) if needs_mask else None)
            current.bridging = True
            arguments = layers.arguments_of(self.anchor, input_ids, attention_mask, position_ids)
            if past_key_values is not None:
                arguments |= {cast(str, cache_argument(self.anchor)): past_key_values.anchor, "use_cache": True}
            else:
                arguments["use_cache"] = False
            if labels is not None and self.training:
                loss, correct = frozen_head_loss(self.anchor, arguments, labels, num_items_in_batch)
                return ComposedOutput(loss=loss, correct=correct)
            if output_hidden_states:
                arguments["output_hidden_states"] = True
            if output_attentions:
                arguments["output_attentions"] = True
            answer = self.anchor(**arguments, logits_to_keep=logits_to_keep)
        facts: dict[str, Any] = {
            CACHE: past_key_values,
            "hidden_states": answer.hidden_states,
            "attentions": answer.attentions,
        }
        if labels is not None:
            facts["loss"] = completion_loss(answer.logits[:, :-1], labels[:, 1:], num_items_in_batch)
        return ComposedOutput(logits=answer.logits, **facts)

    def _read_aug(
        self,
        current: ForwardPass,
        aug_index: int,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        cache: ComposedCache | None,
    ) -> None:
        """Run one aug on the new tokens and turn its tapped states into the keys and values of its bridges."""
        pairs, length = self.connections[aug_index], input_ids.shape[1]
        if cache is not None and length == 0:
            for bridge_index, layer in enumerate(cache.bridges[aug_index].layers):
                held = cast(DynamicLayer, layer)
                current.keys_values[aug_index, bridge_index] = cast(Tensor, held.keys), cast(Tensor, held.values)
            return
        positions, aug = current.positions[:, :length], cast(PreTrainedModel, self.augs[aug_index])
        if attention_mask is not None:
            unread = current.positions.shape[1] - length
            attention_mask = attention_mask[:, : attention_mask.shape[1] - unread]
        decoder = layers.first_layers(aug, max(pair.aug_layer for pair in pairs) + 1)
        known = layers.text_config(aug.config).vocab_size
        if known < layers.text_config(self.anchor.config).vocab_size:
            # Ids that only pad the anchor's vocabulary: no text becomes them, but a model may happen to choose one.
            input_ids = input_ids.clamp(max=known - 1)
        arguments = layers.arguments_of(decoder, input_ids, attention_mask, positions)
        arguments["use_cache"] = cache is not None
        if cache is not None:
            arguments[cast(str, cache_argument(decoder))] = cache.augs[aug_index]
        current.tapping, current.aug_states = aug_index, {}
        with torch.no_grad():
            decoder(**arguments)
        current.tapping = None
        for bridge_index, pair in enumerate(pairs):
            bridge = self.bridge_of(aug_index, bridge_index)
            folded = None
            # A cache that already holds tokens is being decoded with: worth folding the matrices once for.
            if cache is not None and cache.get_seq_length() and not torch.is_grad_enabled():
                if (aug_index, bridge_index) not in cache.folded:
                    cache.folded[aug_index, bridge_index] = bridge.folded()
                folded = cache.folded[aug_index, bridge_index]
            device = bridge.query.weight.device
            states = current.aug_states[pair.aug_layer].to(device)
            keys, values = bridge.keys_values(states, positions.to(device), folded)
            if cache is not None:
                keys, values = cache.bridges[aug_index].update(keys, values, bridge_index)
            current.keys_values[aug_index, bridge_index] = keys, values

    # What makes it behave like any other Hugging Face model.

    def train(self, mode: bool = True) -> "ComposedModelForCausalLM":
        """Set the bridges' mode; the bases always stay in eval mode (no dropout in frozen models)."""
        self.training = mode
        self.bridges.train(mode)
        for base in (self.anchor, self.augs, *self.augs):
            # A training loop asks before every step, and walking over all modules of the bases takes long.
            if base.training:
                base.eval()
        return self

    def composition_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters (Theta_C of the paper) by name."""
        return {f"bridges.{name}": parameter for name, parameter in self.bridges.named_parameters()}

    trained_parameters = composition_parameters

    def card_sections(self) -> list[str]:
        """Return what the model card says of the composition."""
        return composition_sections(self)

    @classmethod
    def from_bases(cls, config: ComposedConfig, bases: Sequence[PreTrainedModel]) -> Self:
        """Return a composed model of these bases, the anchor first, with untrained bridges."""
        return cls(config, bases[0], bases[1:])

    def get_decoder(self) -> nn.Module:
        """Return the anchor's decoder."""
        return layers.decoder(self.anchor)

    def get_input_embeddings(self) -> nn.Module:
        """Return the anchor's token embedding."""
        return self.anchor.get_input_embeddings()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Refuse: every base reads the same ids, so all of them have to be resized, before they are composed."""
        raise UserError("a composed model cannot be resized; resize the anchor and the augs, then compose them")

    def get_output_embeddings(self) -> nn.Module:
        """Return the anchor's LM head."""
        return self.anchor.get_output_embeddings()


AutoModelForCausalLM.register(ComposedConfig, ComposedModelForCausalLM)
# `register` leaves out the table in which transformers' Trainer looks up whose labels it has to shift.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[ComposedConfig.model_type] = ComposedModelForCausalLM.__name__
