"""The new tokens of one forward pass: arguments checked, positions counted, and which aug tokens each may see."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calmctl.errors import UserError
from calmctl.modeling.alignment import bridge_mask, packed_documents, same_tokenizer_visible
from calmctl.modeling.cache import ComposedCache
from calmctl.modeling.layers import position_ids_from


@dataclass(frozen=True)
class NewTokens:
    """The tokens of a forward pass, after those in the cache.

    Attributes:
        ids: (batch, seq).
        attention_mask: (batch, past + seq), 1 = a real token, or None, as it was given.
        padding: the same, but None if every token is real.
        positions: (batch, seq).
        documents: (batch, seq) from `packed_documents`, or None if every row is one document.
        past: number of tokens in the cache.
    """

    ids: Tensor
    attention_mask: Tensor | None
    padding: Tensor | None
    positions: Tensor
    documents: Tensor | None
    past: int

    @classmethod
    def read(
        cls, ids: Tensor, attention_mask: Tensor | None, positions: Tensor | None, cache: ComposedCache | None
    ) -> "NewTokens":
        """Check the arguments of a forward pass and return its new tokens.

        Raises:
            UserError: a mask of the wrong shape, or a full static cache.
        """
        (batch_size, length), past = ids.shape, cache.get_seq_length() if cache is not None else 0
        if attention_mask is not None and attention_mask.shape != (batch_size, past + length):
            raise UserError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; {past} cached and {length} new tokens "
                f"need {(batch_size, past + length)}"
            )
        if cache is not None and cache.allocated is not None and past + length > cache.allocated:
            raise UserError(f"the static cache has room for {cache.allocated} tokens, not for {past} + {length}")
        padding = attention_mask
        if padding is not None and not torch.compiler.is_compiling() and padding.all():
            padding = None  # Every token is real: the bridges need no mask.
        if positions is None:
            found = position_ids_from(padding, batch_size, past, length, ids.device)
            return cls(ids, attention_mask, padding, found, None, past)
        positions = positions.expand(batch_size, length)
        documents = packed_documents(positions) if attention_mask is None and cache is None else None
        return cls(ids, attention_mask, padding, positions, documents, past)

    @property
    def length(self) -> int:
        """Return the number of new tokens."""
        return self.ids.shape[1]

    def first(self, length: int) -> "NewTokens":
        """Return only the first `length` of these tokens."""
        if length == self.length:
            return self
        mask = self.attention_mask[:, : self.past + length] if self.attention_mask is not None else None
        return replace(self, ids=self.ids[:, :length], attention_mask=mask, positions=self.positions[:, :length])

    def is_read(self, prompt_lengths: Tensor | None) -> Tensor | None:
        """Return which tokens (batch, seq) augs read: neither padding nor after the prompt; None = all of them."""
        real = self.padding[:, self.past :].bool() if self.padding is not None else None
        if prompt_lengths is None:
            return real
        within = torch.arange(self.past, self.past + self.length, device=self.ids.device) < prompt_lengths[:, None]
        return within if real is None else within & real

    def mask(self, aug_length: int, prompt_lengths: Tensor | None) -> Tensor | None:
        """Return the bridge mask (batch, 1, seq, aug_length), True = may be attended; None = see `Bridge.forward`."""
        # No mask needed: causal attention among new tokens only, or one token that sees everything.
        whole = self.past + self.length == aug_length and (self.length == 1 or self.past == 0)
        if whole and self.padding is None and self.documents is None and prompt_lengths is None:
            return None
        visible = same_tokenizer_visible(len(self.ids), self.past, self.length, self.ids.device, prompt_lengths)
        return bridge_mask(visible, self.padding, aug_length, self.documents)
