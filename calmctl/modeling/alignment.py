"""Alignment: which aug positions an anchor position may attend to.

The bridge never assumes that the two models read the same tokens at the same places. It is given, per anchor
position, how many aug positions are visible. With one tokenizer that is everything up to and including the position
itself; an alignment of different tokenizers only has to produce other counts.
"""

import torch
from torch import Tensor


def same_tokenizer_visible(batch_size: int, past: int, length: int, device: torch.device) -> Tensor:
    """Return visible counts (batch, length) for models that read the same tokens: position t sees t + 1.

    Args:
        past: number of tokens already in the cache.
        length: number of new tokens.
    """
    return torch.arange(past + 1, past + length + 1, device=device).expand(batch_size, length)


def bridge_mask(visible: Tensor, aug_mask: Tensor | None, aug_length: int) -> Tensor:
    """Return the attention mask of a bridge (batch, 1, anchor_seq, aug_seq), True = may be attended.

    Args:
        visible: (batch, anchor_seq), how many aug positions, counted from the first, each anchor position may see.
        aug_mask: (batch, aug_seq), True = a real token; None = no padding.
        aug_length: aug_seq, the number of aug positions in the cache and the new ones.
    """
    mask = torch.arange(aug_length, device=visible.device) < visible[:, :, None]
    if aug_mask is not None:
        mask = mask & aug_mask.bool()[:, None, :]
    return mask[:, None]
