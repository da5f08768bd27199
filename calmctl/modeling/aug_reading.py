"""Run the augs on new tokens and compute the keys and values of their bridges."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.cache import ComposedCache
from calmctl.modeling.connections import Connection
from calmctl.modeling.hooks import ForwardPass
from calmctl.modeling.kept_states import with_columns
from calmctl.modeling.own_masks import own_mask, shortest_reach, why_no_own_masks
from calmctl.modeling.placement import is_sharded
from calmctl.modeling.probe import input_device
from calmctl.modeling.running import run_decoder
from calmctl.modeling.tokenizers.aug_tokens import AugHistory, AugTokens
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.modeling.tokens import NewTokens
from calmctl.modeling.views import first_layers


class AugReadingMixin:
    """The part of a composed model's forward pass before the anchor runs: all augs read the new tokens.

    Attributes:
        segmenters: per aug; None = it shares the anchor's tokenizer.
    """

    config: Any
    anchor: PreTrainedModel
    augs: nn.ModuleList
    connections: list[tuple[Connection, ...]]
    segmenters: list[Segmenter | None]

    def read_augs(
        self,
        current: ForwardPass,
        tokens: NewTokens,
        prompt_lengths: Tensor | None,
        num_read: int,
        held: ComposedCache | None,
        aug_tokens: Sequence[Tensor | None] | None,
    ) -> None:
        """Run every aug on the new tokens; store its bridges' keys, values and attention mask in `current`.

        Args:
            prompt_lengths: (batch,), if augs read prompts only.
            num_read: number of new tokens that augs read.
            held: the cache, or None.
            aug_tokens: per aug, tokens that a collator has found; see `ComposedModelForCausalLM.forward`.

        Raises:
            UserError: an aug has too few positions, does not take the mask that it needs, or has its own tokenizer,
                which is unknown.
        """
        for aug_index in range(len(self.augs)):
            if self.config.segmentations[aug_index] is None:
                self._read_shared(current, aug_index, tokens.first(num_read), held)
                aug_length = current.keys_values[aug_index, 0][0].shape[-2]
                current.masks.append(tokens.mask(aug_length, prompt_lengths))
            else:
                given = aug_tokens[aug_index] if aug_tokens is not None and held is None else None
                read = self._segmented(aug_index, tokens, prompt_lengths, held, given)
                self._read_own(current, aug_index, read, tokens.positions, held)
                current.masks.append(read.bridge_mask(prompt_lengths))
        if held is not None and self.config.aug_reads == "prompt":
            held.num_read = max(held.num_read, tokens.past + num_read)

    def _read_shared(
        self, current: ForwardPass, aug_index: int, tokens: NewTokens, cache: ComposedCache | None
    ) -> None:
        """Run an aug that shares the anchor's tokenizer on new tokens."""
        if cache is not None and tokens.length == 0:
            return self._read_nothing(current, aug_index, cache)
        aug = cast(PreTrainedModel, self.augs[aug_index])
        known, ids = layers.text_config(aug.config).vocab_size, tokens.ids
        if known < layers.text_config(self.anchor.config).vocab_size:
            # Larger ids only pad the anchor's vocabulary: no text contains them, but sampling may draw one.
            ids = ids.clamp(max=known - 1)
        end = tokens.past + tokens.length
        self._run_aug(current, aug_index, ids, tokens.attention_mask, tokens.positions, end, tokens.positions, cache)

    def _segmented(
        self,
        aug_index: int,
        tokens: NewTokens,
        prompt_lengths: Tensor | None,
        cache: ComposedCache | None,
        given: Tensor | None,
    ) -> AugTokens:
        """Return the tokens that an aug with its own tokenizer reads for the new anchor tokens.

        Args:
            given: tokens that a collator has found, see `AugTokens.stacked`.

        Raises:
            UserError: the aug's tokenizer is unknown.
        """
        if given is not None:
            return AugTokens.stacked(given, tokens.length)
        segmenter = self.segmenters[aug_index]
        if segmenter is None:
            raise UserError(
                f"aug {aug_index} has a tokenizer of its own, which a model made of a configuration only does not know;"
                " load it with from_pretrained, or compose the models"
            )
        history = cast(AugHistory, cache.histories[aug_index]) if cache is not None else AugHistory()
        read = history.read(segmenter, tokens.ids, tokens.is_read(prompt_lengths), tokens.documents)
        return read.to(tokens.ids.device)

    def _read_own(
        self,
        current: ForwardPass,
        aug_index: int,
        read: AugTokens,
        positions: Tensor,
        cache: ComposedCache | None,
    ) -> None:
        """Run an aug on new tokens of its own tokenizer.

        Args:
            positions: (batch, seq) of the anchor's new tokens.
        """
        if cache is not None and read.num_new == 0:
            return self._read_nothing(current, aug_index, cache)
        aug, places = cast(PreTrainedModel, self.augs[aug_index]), read.new_places
        window = shortest_reach(aug)
        mask: Any
        if read.is_plain and (window is None or read.num_columns <= window):
            mask = read.padding()
            mask = mask.long() if mask is not None else None
        elif reason := why_no_own_masks(aug):
            raise UserError(
                f"aug {aug_index}, a {type(aug).__name__}, cannot be told token by token what to attend to, which "
                f"packed rows and text that is tokenized again need: {reason}"
            )
        else:
            mask = own_mask(layers.decoder(aug), read.allowed(), places, read.places)
        anchor_positions = read.anchor_positions(positions)
        self._run_aug(current, aug_index, read.ids, mask, places, read.longest, anchor_positions, cache)

    def _read_nothing(self, current: ForwardPass, aug_index: int, cache: ComposedCache) -> None:
        """Take keys and values from the cache for an aug that has no new tokens."""
        aug = cast(PreTrainedModel, self.augs[aug_index])
        if is_sharded(layers.decoder_layers(aug)[0]):
            # All processes must run a sharded aug together, and another process may have new tokens.
            nothing = torch.zeros(1, 1, dtype=torch.long, device=input_device(aug))
            with torch.no_grad():
                run_decoder(aug, self._tapped_layers(aug_index), nothing, None, nothing, 1, None)
        for bridge_index, layer in enumerate(cache.bridges[aug_index].layers):
            held = cast(DynamicLayer, layer)
            current.keys_values[aug_index, bridge_index] = cast(Tensor, held.keys), cast(Tensor, held.values)

    def _run_aug(
        self,
        current: ForwardPass,
        aug_index: int,
        ids: Tensor,
        mask: Any,
        positions: Tensor,
        end: int,
        anchor_positions: Tensor,
        cache: ComposedCache | None,
    ) -> None:
        """Run one aug on new tokens and turn its tapped states into the keys and values of its bridges.

        Args:
            ids, mask, positions, end: see `run_decoder`.
            anchor_positions: (batch, new) anchor position of each new aug token, for rotary bridges.
        """
        pairs, aug = self.connections[aug_index], cast(PreTrainedModel, self.augs[aug_index])
        decoder = self._tapped_layers(aug_index)
        current.tapping, current.aug_states = aug_index, {}
        if current.kept is not None:
            kept = current.kept["augs"][aug_index]
            current.aug_states = {layer: with_columns(states, ids.shape[1]) for layer, states in kept.items()}
        else:
            held = cache.augs[aug_index] if cache is not None else None
            with torch.no_grad():
                run_decoder(aug, decoder, ids, mask, positions, end, held)
        current.tapping = None
        if current.keeping is not None:
            current.keeping["augs"].append(current.aug_states)
        for bridge_index, pair in enumerate(pairs):
            bridge = current.bridge(aug_index, bridge_index)
            folded, place = None, (aug_index, bridge_index)
            if cache is not None and not torch.is_grad_enabled():
                # A cache with tokens in it means decoding: worth folding the matrices once.
                if cache.get_seq_length() and place not in cache.folded:
                    cache.folded[place] = bridge.folded()
                folded = cache.folded.get(place)
            device = layers.device_of(bridge.query)
            states = current.aug_states[pair.aug_layer].to(device)
            keys, values = bridge.keys_values(states, anchor_positions.to(device), folded)
            if cache is not None:
                keys, values = cache.bridges[aug_index].update(keys, values, bridge_index)
            current.keys_values[aug_index, bridge_index] = keys, values

    def _tapped_layers(self, aug_index: int) -> PreTrainedModel:
        """Return the decoder of an aug up to its last tapped layer."""
        last = max(pair.aug_layer for pair in self.connections[aug_index])
        return first_layers(cast(PreTrainedModel, self.augs[aug_index]), last + 1)
