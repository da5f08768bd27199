"""A composed model below its LM head: from token ids to the anchor's last hidden states, bridge updates included.

Shapes: (batch, seq) for ids and masks, (batch, seq, dim) for states.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import can_return_tuple

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.alignment import positions_in_documents, prompt_to_read
from calmctl.modeling.aug_reading import AugReadingMixin
from calmctl.modeling.bridge import Bridge
from calmctl.modeling.cache import ComposedCache
from calmctl.modeling.calling import CACHE, either_cache
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.connections import Connection
from calmctl.modeling.hooks import ForwardPass, Hooks, is_under_way, new_pass
from calmctl.modeling.kept_states import KeptStates, beginning_after
from calmctl.modeling.options import BridgeConfig
from calmctl.modeling.recomputation import RecomputingMixin
from calmctl.modeling.running import run_decoder
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.modeling.tokens import NewTokens
from calmctl.modeling.views import first_layers


class ComposedPreTrainedModel(PreTrainedModel):
    """What transformers needs to know of composed models, with or without LM head."""

    config_class = ComposedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def init_weights(self) -> None:
        """Do nothing: the bases bring their weights and bridges initialise themselves."""


class ComposedModel(AugReadingMixin, RecomputingMixin, ComposedPreTrainedModel):
    """Anchor, augs and bridges without the LM head; `get_decoder` of a composed model returns it.

    Augs run without gradients, without their LM heads and only up to their last tapped layer. Bridges act through hooks
    on the anchor's layers, so any decoder-only model can be a base.
    """

    def __init__(
        self,
        config: ComposedConfig,
        anchor: PreTrainedModel,
        augs: Sequence[PreTrainedModel],
        segmenters: Sequence[Segmenter | None] | None = None,
    ) -> None:
        super().__init__(config)
        self.anchor, self.augs = anchor, nn.ModuleList(augs)
        # Per aug; None = it shares the anchor's tokenizer.
        self.segmenters = list(segmenters) if segmenters is not None else [None] * len(augs)
        self.connections: list[tuple[Connection, ...]] = [
            tuple(Connection(*pair) for pair in pairs) for pairs in config.connections
        ]
        bridge_config = BridgeConfig.stored(config.bridge)
        self.bridges = nn.ModuleList(
            nn.ModuleList(self._new_bridge(bridge_config, aug, pair) for pair in pairs)
            for aug, pairs in zip(augs, self.connections, strict=True)
        )
        for base in (anchor, *augs):
            base.requires_grad_(False)
        # Collected once: walking module trees is slow, and every forward pass checks their mode.
        self._frozen = [self.augs, *(module for base in (anchor, *augs) for module in base.modules())]
        self._identity = object()
        self._hooks = Hooks(self._identity, self.connections)
        self._ready()
        self.post_init()
        self.eval()

    def _new_bridge(self, config: BridgeConfig, aug: PreTrainedModel, pair: Connection) -> Bridge:
        anchor_config = self.anchor.config
        bridge = Bridge(
            config, layers.hidden_size(aug.config), layers.hidden_size(anchor_config), layers.num_heads(anchor_config)
        )
        return bridge.to(device=layers.device_of(layers.decoder_layers(self.anchor)[pair.anchor_layer]))

    # The forward pass.

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: ComposedCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        prompt_lengths: Tensor | None = None,
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
    ) -> BaseModelOutputWithPast:
        """Run every aug on the tokens, then the anchor's decoder with the bridges; see `ComposedModelForCausalLM`.

        Args:
            logits_to_keep: ignored, accepted because some callers pass it to decoders; all states are returned.

        Raises:
            UserError: see `ComposedModelForCausalLM.forward`.
        """
        if input_ids is None or inputs_embeds is not None:
            raise UserError(
                "a composed model needs input_ids, inputs_embeds will not do: anchor and augs each embed the tokens "
                "themselves"
            )
        if input_ids.shape[1] == 0:
            raise UserError("input_ids: there are no tokens; give one or more")
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if cu_seq_lens_q is not None:
            if use_cache or either_cache(past_key_values, cache) is not None:
                raise UserError("packed documents (cu_seq_lens_q) have no cache; give them without one")
            use_cache = False
            if position_ids is None:
                position_ids = positions_in_documents(cu_seq_lens_q, input_ids.shape[1])
        held = self._cache_to_use(either_cache(past_key_values, cache), use_cache, recompute)
        if kept_states is not None and held is not None:
            raise UserError("kept_states are those of whole rows, without a cache; give use_cache=False")
        tokens = NewTokens.read(input_ids, attention_mask, position_ids, held)
        prompt_lengths, num_read = self._prompt(tokens, prompt_lengths, held)
        anchor_layers = self._ready()
        first = min(pair.anchor_layer for pairs in self.connections for pair in pairs)
        above = anchor_layers[first + 1 :] if recompute else ()
        eager = getattr(self.anchor.config, "_attn_implementation", None) == "eager"
        with ExitStack() as stack:
            current = stack.enter_context(new_pass(ForwardPass(self._identity, self.bridges, eager, kept=kept_states)))
            stack.enter_context(self.recomputing(above))
            current.positions = tokens.positions
            self.read_augs(current, tokens, prompt_lengths, num_read, held, aug_tokens)
            if kept_states is not None:
                is_ours = partial(is_under_way, current)
                stack.enter_context(beginning_after([*anchor_layers[: first + 1]], kept_states["anchor"], is_ours))
            current.bridging = True
            # `generate(assistant_early_exit=...)` lowers it to draft with fewer layers.
            depth = self.config.num_hidden_layers
            is_whole = depth >= len(anchor_layers)
            decoded = run_decoder(
                self.anchor,
                layers.decoder(self.anchor) if is_whole else first_layers(self.anchor, depth),
                tokens.ids,
                tokens.attention_mask,
                tokens.positions,
                tokens.past + tokens.length,
                held.anchor if held is not None else None,
                {
                    "output_hidden_states": _given_or(self.config.output_hidden_states, output_hidden_states),
                    "output_attentions": _given_or(self.config.output_attentions, output_attentions),
                },
            )
        return BaseModelOutputWithPast(
            last_hidden_state=decoded.last_hidden_state,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
            **{CACHE: held},
        )

    @torch.no_grad()
    def states_to_keep(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        prompt_lengths: Tensor | None = None,
        aug_tokens: Sequence[Tensor | None] | None = None,
    ) -> KeptStates:
        """Return the states of a batch that no bridge changes; `forward` explains the arguments."""
        tokens = NewTokens.read(input_ids, attention_mask, position_ids, None)
        prompt_lengths, num_read = self._prompt(tokens, prompt_lengths, None)
        self._ready()
        first = min(pair.anchor_layer for pairs in self.connections for pair in pairs)
        found = KeptStates(anchor=torch.empty(0), augs=[])
        with new_pass(ForwardPass(self._identity, self.bridges, keeping=found)) as current:
            current.positions = tokens.positions
            self.read_augs(current, tokens, prompt_lengths, num_read, None, aug_tokens)
            below = first_layers(self.anchor, first + 1)
            run_decoder(self.anchor, below, tokens.ids, tokens.attention_mask, tokens.positions, tokens.length, None)
        return found

    def _cache_to_use(self, cache: Cache | None, use_cache: bool | None, recompute: bool) -> ComposedCache | None:
        """Return the given cache, a new one, or None."""
        if cache is not None and not isinstance(cache, ComposedCache):
            raise UserError(f"{CACHE} must be a ComposedCache, got {type(cache).__name__}")
        if recompute:
            # Recomputed layers would write into the cache a second time.
            if cache is not None and cache.get_seq_length():
                raise UserError("gradient checkpointing cannot go on from a cache; disable one of them")
            return None
        if use_cache is None:
            use_cache = not self.training and self.config.use_cache
        return self.new_cache() if use_cache and cache is None else cache

    def _prompt(
        self, tokens: NewTokens, prompt_lengths: Tensor | None, cache: ComposedCache | None
    ) -> tuple[Tensor | None, int]:
        """Return prompt lengths (batch,), None unless augs read prompts only, and how many new tokens augs read."""
        if self.config.aug_reads != "prompt":
            return None, tokens.length
        if tokens.documents is not None:
            raise UserError("augs that read prompts only cannot read packed rows; give one document a row")
        if self.training and prompt_lengths is None and not tokens.past:
            raise UserError(
                "augs that read prompts only need labels or prompt_lengths while training: what computes its loss "
                "elsewhere would let them read the answers"
            )
        if cache is not None:
            if prompt_lengths is None and cache.has_prompt_lengths:
                raise UserError("the prompts in the cache have several lengths; give prompt_lengths with every input")
            if prompt_lengths is not None and not torch.compiler.is_compiling():
                cache.has_prompt_lengths |= bool((prompt_lengths != prompt_lengths[0]).any())
        read = cache.num_read if cache is not None else 0
        lengths, num_read = prompt_to_read(prompt_lengths, len(tokens.ids), tokens.past, tokens.length, read)
        return lengths.to(tokens.ids.device), num_read

    def _ready(self) -> nn.ModuleList:
        """Put the bases into eval mode and the hooks in place; return the anchor's layers."""
        layers.keep_in_eval_mode(self._frozen)
        anchor_layers = layers.decoder_layers(self.anchor)
        self._hooks.follow(anchor_layers, [layers.decoder_layers(cast(PreTrainedModel, aug)) for aug in self.augs])
        return anchor_layers

    def new_cache(self, max_cache_len: int | None = None) -> ComposedCache:
        """Return an empty cache for this model; `max_cache_len` makes it static, with room for that many tokens."""
        configs = [cast(PreTrainedModel, aug).config for aug in self.augs]
        is_shared = [segmentation is None for segmentation in self.config.segmentations]
        return ComposedCache(self.anchor.config, configs, max_cache_len, is_shared)

    # The Hugging Face model interface.

    def train(self, mode: bool = True) -> Self:
        """Set the bridges' mode; the bases always stay in eval mode (no dropout in frozen models)."""
        self.training = mode
        self.bridges.train(mode)
        layers.keep_in_eval_mode(self._frozen)
        return self

    def get_decoder(self) -> nn.Module:
        """Return this model, which has no LM head."""
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Return the anchor's token embedding."""
        return self.anchor.get_input_embeddings()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: checkpoints belong to the model with its LM head."""
        raise UserError("a composed model is saved with its head: call save_pretrained of the whole model")


def _given_or(configured: Any, given: Any) -> Any:
    return configured if given is None else given
