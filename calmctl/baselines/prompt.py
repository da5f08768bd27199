"""Prompt tuning (Lester et al. 2021) and p-tuning (Liu et al. 2021): trained embeddings before every text.

Virtual tokens take the first places of the context, as in peft, whose encoders these are. peft counts them in the cache
and in the attention mask; here both stay as they are without them, so that `generate`, padding, beams and shared
prompts work as for any model.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from calmctl.baselines.options import AdapterOptions
from calmctl.baselines.places import as_modules, names_of_modules
from calmctl.errors import UserError
from calmctl.modeling.cache import join_caches
from calmctl.modeling.calling import cache_argument
from calmctl.modeling.layers import arguments_of, decoder, device_of, hidden_size, position_ids_from, text_config

# Width of the hidden layers of p-tuning's encoder, as in peft's guides.
ENCODER_WIDTH = 128


class Prompt(nn.Module):
    """Embeddings of virtual tokens, by an encoder of peft."""

    def __init__(self, encoder: nn.Module, length: int) -> None:
        super().__init__()
        self.encoder, self.length = encoder, length

    def forward(self) -> Tensor:
        """Return the embeddings (length, dim)."""
        return self.encoder(torch.arange(self.length, device=device_of(self)))


class PromptedCache(Cache):
    """The anchor's cache, which holds virtual tokens too, as it looks from outside: without them.

    Args:
        inner: an empty cache of the anchor.
        length: number of virtual tokens.
    """

    is_compileable = False

    def __init__(self, inner: Cache, length: int) -> None:
        self.inner, self.length = inner, length
        # (rows, 1): where the virtual tokens stand in each row, which the first tokens decide; None = still empty.
        self.first: Tensor | None = None
        super().__init__(layers=[])

    @property
    def parts(self) -> list[Cache]:
        """Return the one cache inside."""
        return [self.inner]

    @property
    def layers(self) -> list:
        """Return the layers inside; transformers' operations on whole caches (reordering, ...) loop over them."""
        return self.inner.layers

    @layers.setter
    def layers(self, _: list) -> None:
        """Ignore the assignment in the base class's constructor."""

    def update(self, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Refuse: the anchor updates the cache inside."""
        raise TypeError("a PromptedCache is updated through the cache inside; pass it to a prompt-tuned model only")

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of cached tokens, virtual ones not counted."""
        return max(int(self.inner.get_seq_length(layer_idx)) - self.length, 0)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest `-tokens_to_remove` tokens; virtual ones stay.

        Raises:
            UserError: the number is positive, or there are fewer tokens behind the padding of a row.
        """
        held = self.get_seq_length() - (int(self.first.max()) if self.first is not None else 0)
        if not 0 <= -tokens_to_remove <= held:
            raise UserError(f"crop({tokens_to_remove}): the shortest row of the cache holds {held} tokens")
        self.inner.crop(tokens_to_remove)

    def reset(self) -> None:
        """Drop all tokens."""
        self.first = None
        self.inner.reset()

    # Operations of transformers on all layers, extended to the places of the virtual tokens.

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows of the batch (beam search)."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        self.first = self.first.repeat_interleave(repeats, 0) if self.first is not None else None

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows of the batch."""
        super().batch_select_indices(indices)
        self._select(indices)

    def join(self, other: "PromptedCache", shifts: tuple[int, int]) -> None:
        """Append the rows of another cache; see `join_caches`."""
        join_caches(self.inner, other.inner, shifts)
        firsts = cast(Tensor, self.first), cast(Tensor, other.first)
        self.first = torch.cat([first + shift for first, shift in zip(firsts, shifts, strict=True)])

    def _select(self, indices: Tensor) -> None:
        self.first = self.first[indices.to(self.first.device)] if self.first is not None else None


class PromptedDecoder(nn.Module):
    """An anchor's decoder that reads virtual tokens first, and does not return their states.

    Tools that compute a loss from a model's decoder and its LM head would miss them otherwise.
    """

    def __init__(self, anchor: PreTrainedModel, prompt: Prompt) -> None:
        super().__init__()
        self.anchor, self.prompt = anchor, prompt

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **others: Any,
    ) -> BaseModelOutputWithPast:
        """Return the states (batch, seq, dim) of the tokens (batch, seq); a cache has to be the model's own."""
        if position_ids is None:
            batch_size, length = input_ids.shape
            cache = others.get(cast(str, cache_argument(self.anchor)))
            past = int(cache.get_seq_length()) if cache is not None else 0
            position_ids = position_ids_from(attention_mask, batch_size, past, length, input_ids.device)
        arguments = arguments_of(self.anchor, input_ids, attention_mask, position_ids) | others
        arguments, before = with_prompt(self.anchor, self.prompt, arguments)
        states = decoder(self.anchor)(**arguments).last_hidden_state
        return BaseModelOutputWithPast(last_hidden_state=states[:, before:])


def tuning_units(anchor: PreTrainedModel, options: AdapterOptions) -> dict[str, int]:
    """Return the parameters per virtual token."""
    return {names_of_modules(anchor)[anchor.get_input_embeddings()]: _width(anchor)}


def encoder_parameters(anchor: PreTrainedModel) -> int:
    """Return the parameters of p-tuning's encoder, which do not depend on the number of virtual tokens."""
    dim, width = _width(anchor), ENCODER_WIDTH
    return (dim * width + width) + (width * width + width) + (width * dim + dim)


def attach_prompt(anchor: PreTrainedModel, sizes: Mapping[str, int], options: AdapterOptions) -> nn.ModuleDict:
    """Return the virtual tokens of prompt tuning.

    They start as the embeddings of tokens drawn from the vocabulary, or as published: N(0, 1), peft's default.
    """
    from peft import PromptTuningConfig
    from peft.tuners.prompt_tuning.model import PromptEmbedding

    ((name, length),) = sizes.items()
    start = "RANDOM" if options.init == "published" else "SAMPLE_VOCAB"
    config = PromptTuningConfig(**_shape(anchor, length), prompt_tuning_init=start)
    words = anchor.get_input_embeddings()
    return _only(name, PromptEmbedding(config, words), length, device_of(words))


def attach_encoded(anchor: PreTrainedModel, sizes: Mapping[str, int], options: AdapterOptions) -> nn.ModuleDict:
    """Return the virtual tokens of p-tuning, which come out of an MLP."""
    from peft import PromptEncoderConfig
    from peft.tuners.p_tuning.model import PromptEncoder

    ((name, length),) = sizes.items()
    config = PromptEncoderConfig(**_shape(anchor, length), encoder_hidden_size=ENCODER_WIDTH)
    return _only(name, PromptEncoder(config), length, device_of(anchor.get_input_embeddings()))


def _width(anchor: PreTrainedModel) -> int:
    """Return the width of the token embeddings.

    Raises:
        UserError: it is not that of the model (OPT-350M projects its embeddings), or token ids are also looked up in
            another table (Gemma 4 has one for every layer), in which virtual tokens have no row.
    """
    words, dim = cast(nn.Embedding, anchor.get_input_embeddings()), hidden_size(anchor.config)
    tables = [each for each in anchor.modules() if isinstance(each, nn.Embedding) and each is not words]
    if words.embedding_dim != dim:
        reason = f"has embeddings of width {words.embedding_dim} and states of {dim}"
    elif any(table.num_embeddings == words.num_embeddings for table in tables):
        reason = "looks token ids up in more than one table"
    else:
        return dim
    raise UserError(f"{type(anchor).__name__} {reason}, so it cannot have virtual tokens; use prefix or another method")


def _shape(anchor: PreTrainedModel, length: int) -> dict[str, Any]:
    return {"num_virtual_tokens": length, "token_dim": _width(anchor), "num_transformer_submodules": 1}


def _only(name: str, encoder: nn.Module, length: int, device: torch.device) -> nn.ModuleDict:
    return as_modules({name: Prompt(encoder.float(), length).to(device)})


def new_cache(anchor: PreTrainedModel, prompt: Prompt) -> PromptedCache:
    """Return an empty cache for an anchor with virtual tokens."""
    return PromptedCache(DynamicCache(config=text_config(anchor.config)), prompt.length)


def with_prompt(anchor: PreTrainedModel, prompt: Prompt, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the arguments of an anchor's forward pass with virtual tokens, and how many come before the new tokens.

    Args:
        arguments: `input_ids` (batch, seq), `attention_mask` (batch, past + seq) if there is one, `position_ids` if
            the anchor takes them, and the cache: a PromptedCache or None.

    Raises:
        UserError: a cache that does not come from `new_cache`.
    """
    name, changed = cast(str, cache_argument(anchor)), dict(arguments)
    cache = changed.get(name)
    if cache is not None:
        if not isinstance(cache, PromptedCache):
            raise UserError("virtual tokens need a cache of the model's own; leave it out, or use model.new_cache()")
        changed[name] = cache.inner
    length, ids, mask = prompt.length, changed["input_ids"], changed.get("attention_mask")
    is_start = cache is None or not cache.inner.get_seq_length()
    if is_start:
        # Where the first real token stands; a row without any begins with virtual tokens, now and in later calls.
        none = torch.zeros(len(ids), 1, dtype=torch.long, device=ids.device)
        first = (mask != 0).int().argmax(-1, keepdim=True) if mask is not None else none
        if cache is not None:
            cache.first = first
    else:
        first = cast(PromptedCache, cache).first
    if mask is not None:
        changed["attention_mask"] = _joined(mask.new_ones(length), mask, first)
    positions = changed.get("position_ids")
    if positions is not None:
        changed["position_ids"] = positions = positions.expand(len(ids), -1) + length
    if not is_start:
        return changed, 0
    embedded = anchor.get_input_embeddings()(changed.pop("input_ids"))
    changed["inputs_embeds"] = _joined(prompt().to(embedded.dtype), embedded, first)
    if positions is not None:
        changed["position_ids"] = _joined(torch.arange(length, device=ids.device), positions, first)
    return changed, length


def _joined(virtual: Tensor, rows: Tensor, first: Tensor) -> Tensor:
    """Return rows with something for each virtual token before the first real one, which padding may precede.

    Directly before it, as sliding windows and some biases count places, padding included.

    Args:
        virtual: (length, ...).
        rows: (batch, seq, ...).
        first: (batch, 1), the place of the first real token.
    """
    length, joined = len(virtual), torch.cat([virtual.expand(len(rows), *virtual.shape), rows], 1)
    places = torch.arange(joined.shape[1], device=rows.device).expand(len(rows), -1)
    source = torch.where(places < first, places + length, torch.where(places < first + length, places - first, places))
    return joined.gather(1, source.view(*source.shape, *[1] * (joined.ndim - 2)).expand_as(joined))
